"""Weights that share a few values: how many, how near, and what stays."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from models import conv_chain

from deburr.ir.errors import DeburrError
from deburr.ir.onnx_reader import read
from deburr.passes.core import Context
from deburr.passes.prune.cluster_weights import ClusterWeights, k_means
from deburr.passes.prune.weights import PruneWeights

numbers = st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=200).map(lambda items: np.array(items, np.float64))


def weights(model):
    return [value.array for value in model.graph.constants if value.array.ndim >= 2]


def clustered(*passes):
    model = read(conv_chain((3, 16, 24)))
    before = weights(model)
    for one in passes:
        one.run(model.graph, Context(model))
    return before, weights(model)


@given(numbers, st.integers(1, 20))
def test_k_means_gives_few_values_and_no_more_error_than_even_steps(flat, clusters):
    made = k_means(flat, clusters)
    assert len(np.unique(made)) <= clusters
    centres = np.linspace(flat.min(), flat.max(), clusters)
    even = centres[np.abs(flat[:, None] - centres).argmin(1)]
    assert np.square(flat - made).sum() <= np.square(flat - even).sum() * (1 + 1e-9) + 1e-9


@given(numbers, st.integers(1, 20))
def test_k_means_keeps_the_order(flat, clusters):
    made = k_means(flat, clusters)[np.argsort(flat, kind="stable")]
    assert (np.diff(made) >= 0).all()


def test_each_tensor_holds_so_many_values_and_deflates():
    before, after = clustered(ClusterWeights(clusters=16))
    for old, new in zip(before, after, strict=True):
        assert new.shape == old.shape
        assert new.dtype == old.dtype
        assert len(np.unique(new)) <= 16
        assert np.abs(new - old).max() < np.abs(old).max() / 4
    old, new = (sum(len(zlib.compress(array.tobytes())) for array in arrays) for arrays in (before, after))
    assert new < old / 3


def test_zeros_stay_zeros():
    _, after = clustered(PruneWeights(sparsity=0.5), ClusterWeights(clusters=4))
    assert sum(int((array == 0).sum()) for array in after) == round(sum(array.size for array in after) / 2)
    assert all(len(np.unique(array)) <= 4 for array in after)


def test_a_second_run_changes_nothing():
    model = read(conv_chain())
    ClusterWeights(clusters=5).run(model.graph, Context(model))
    revision = model.revision
    ClusterWeights(clusters=5).run(model.graph, Context(model))
    assert model.revision == revision


def test_too_few_clusters():
    with pytest.raises(DeburrError) as caught:
        clustered(ClusterWeights(clusters=1))
    assert str(caught.value) == ("error[E203]: clusters is out of range, pass cluster-weights{clusters=1}; give at least 2")
