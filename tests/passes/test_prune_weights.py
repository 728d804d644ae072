"""Unstructured pruning: what becomes zero, and what never does."""

from __future__ import annotations

import numpy as np
import pytest
from models import conv_chain

from deburr.ir.errors import DeburrError
from deburr.ir.onnx_reader import read
from deburr.passes.core import Context
from deburr.passes.prune.weights import PruneWeights


def _prune(**options):
    model = read(conv_chain())
    before = {value.name: np.array(value.array) for value in model.graph.constants}
    context = Context(model)
    PruneWeights(**options).run(model.graph, context)
    after = {value.name: value.array for value in model.graph.constants}
    return before, after, context


def _is_weight(array):
    return array.ndim >= 2


def test_threshold_zeroes_what_is_strictly_smaller():
    before, after, context = _prune(threshold=0.2)
    for name, array in before.items():
        expected = np.where(np.abs(array) < 0.2, 0, array) if _is_weight(array) else array
        np.testing.assert_array_equal(after[name], expected)
    assert "a dense file does not shrink" in context.remarks[0].reason


@pytest.mark.parametrize("sparsity", [0.0, 0.25, 0.9, 1.0])
def test_global_sparsity_is_reached_over_all_weights_together(sparsity):
    before, after, _ = _prune(sparsity=sparsity)
    weights = np.concatenate([array.ravel() for array in after.values() if _is_weight(array)])
    assert (weights == 0).sum() == round(sparsity * weights.size)
    smallest = np.sort(np.abs(np.concatenate([array.ravel() for array in before.values() if _is_weight(array)])))
    assert not (np.abs(weights[weights != 0]) < smallest[(weights == 0).sum() - 1]).any() or sparsity == 0


def test_layer_sparsity_is_reached_in_each_tensor():
    _, after, _ = _prune(sparsity=0.5, scope="layer")
    for array in after.values():
        if _is_weight(array):
            assert (array == 0).sum() == round(array.size / 2)


def test_a_second_run_changes_nothing():
    model = read(conv_chain())
    context = Context(model)
    PruneWeights(sparsity=0.5).run(model.graph, context)
    revision = model.revision
    PruneWeights(sparsity=0.5).run(model.graph, context)
    assert model.revision == revision


def test_without_an_option_it_says_so():
    _, _, context = _prune()
    assert str(context.remarks[0]).endswith("nothing to do (give threshold or sparsity)")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 0.1, "sparsity": 0.5}, "threshold and sparsity exclude each other"),
        ({"threshold": -1.0}, "threshold is out of range"),
        ({"threshold": float("nan")}, "threshold is out of range"),
        ({"sparsity": 1.5}, "sparsity is out of range"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(DeburrError, match=message) as caught:
        _prune(**options)
    assert caught.value.code == "E203"
