"""Unstructured pruning: what becomes zero, and what never does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from models import Builder, conv_chain

from deburr.ir.errors import DeburrError
from deburr.ir.onnx_reader import read
from deburr.passes.core import Context
from deburr.passes.prune.pattern import block_magnitudes, outside_pattern
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
    assert str(context.remarks[0]).endswith("nothing to do (give threshold, sparsity or pattern)")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 0.1, "sparsity": 0.5}, "threshold, sparsity and pattern exclude each other"),
        ({"threshold": -1.0}, "threshold is out of range"),
        ({"threshold": float("nan")}, "threshold is out of range"),
        ({"sparsity": 1.5}, "sparsity is out of range"),
        ({"pattern": (5, 4)}, "pattern is out of range"),
        ({"pattern": (0, 4)}, "pattern is out of range"),
        ({"pattern": (2, 4), "sparsity": 0.5}, "exclude each other"),
        ({"block": (0, 1), "sparsity": 0.5}, "block is out of range"),
        ({"block": (4, 1)}, "not how many go"),
        ({"block": (4, 1), "pattern": (2, 4)}, "not how many go"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(DeburrError, match=message) as caught:
        _prune(**options)
    assert caught.value.code == "E203"


@given(hnp.arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 13), st.integers(1, 3)),
                  elements=st.floats(-4, 4, width=32)), st.integers(0, 2), st.integers(1, 4), st.integers(0, 3))  # fmt: skip
def test_a_pattern_keeps_the_largest_of_each_run(array, axis, kept, more):
    of = kept + more
    gone = outside_pattern(array, axis, kept, of)
    rows, out = np.moveaxis(np.abs(array), axis, -1), np.moveaxis(gone, axis, -1)
    for start in range(0, rows.shape[-1], of):
        run, lost = rows[..., start : start + of], out[..., start : start + of]
        length = run.shape[-1]
        assert ((~lost).sum(-1) == -(-kept * length // of)).all()
        largest_lost = np.where(lost, run, -1).max(-1)
        smallest_kept = np.where(lost, 9, run).min(-1)
        assert (largest_lost <= smallest_kept).all()


def test_two_of_four_along_what_is_summed():
    before, after, context = _prune(pattern=(2, 4))
    convolutions = [name for name, array in before.items() if array.ndim == 4 and array.shape[1] % 4 == 0]
    assert convolutions
    for name in convolutions:
        runs = after[name].transpose(0, 2, 3, 1).reshape(-1, 4)
        assert ((runs != 0).sum(1) == 2).all()
    assert "weights are zero" in context.remarks[0].reason


@pytest.mark.parametrize(("transpose", "shape"), [(0, (8, 6)), (1, (6, 8))])
def test_a_matrix_is_thinned_along_its_inner_dimension(transpose, shape):
    builder = Builder()
    builder.node("Gemm", ["x", builder.constant(np.arange(1, 49, dtype=np.float32).reshape(shape), "w")], "y", transB=transpose)
    model = read(builder.model({"x": ["batch", 8]}, {"y": ["batch", 6]}))
    PruneWeights(pattern=(1, 4)).run(model.graph, Context(model))
    (array,) = [value.array for value in model.graph.constants]
    rows = array if transpose else array.T
    assert ((rows.reshape(-1, 4) != 0).sum(1) == 1).all()


lengths = st.integers(1, 5)
kernels = hnp.arrays(
    np.float32, st.tuples(st.integers(1, 9), st.integers(1, 7), st.integers(1, 2)), elements=st.floats(-4, 4, width=32)
)


@given(kernels, st.permutations(range(3)), st.tuples(lengths, lengths))
def test_a_block_is_measured_as_a_whole_and_a_tail_by_what_it_holds(array, axes, block):
    out, in_ = axes[:2]
    found = block_magnitudes(array, (out, in_), block).transpose(axes)
    matrix = array.transpose(axes).astype(np.float64)
    for row in range(0, matrix.shape[0], block[0]):
        for column in range(0, matrix.shape[1], block[1]):
            part = np.s_[row : row + block[0], column : column + block[1]]
            expected = np.sqrt(np.square(matrix[part]).mean((0, 1)))
            np.testing.assert_allclose(found[part], np.broadcast_to(expected, found[part].shape), rtol=1e-12)


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_blocks_go_as_a_whole_until_the_share_is_gone(scope):
    before, after, _ = _prune(sparsity=0.5, block=(4, 1), scope=scope)
    zeros = total = 0
    for name, array in after.items():
        if not _is_weight(array):
            continue
        zeros, total = zeros + int((array == 0).sum()), total + array.size
        for start in range(0, array.shape[0], 4):  # Gemm has 10 outputs: its last block has 2
            gone = array[start : start + 4] == 0
            assert (gone.all(0) | ~gone.any(0)).all()
        np.testing.assert_array_equal(array[array != 0], before[name][array != 0])
        assert scope == "global" or 0 <= (array == 0).sum() - round(0.5 * array.size) < 4
    assert 0 <= zeros - round(0.5 * total) < 4 * (1 if scope == "global" else 3)


def test_blocks_by_threshold_lie_along_the_outputs_of_a_matrix():
    weights = np.full((2, 8), 0.1, np.float32)  # [in, out]
    weights[0, :4], weights[1, 3] = 1, 3  # a block of ones, and one large weight that saves its block
    builder = Builder()
    builder.node("MatMul", ["x", builder.constant(weights, "w")], "y")
    model = read(builder.model({"x": ["batch", 2]}, {"y": ["batch", 8]}))
    PruneWeights(threshold=0.5, block=(4, 1)).run(model.graph, Context(model))
    (array,) = [value.array for value in model.graph.constants]
    np.testing.assert_array_equal(array[:, :4], weights[:, :4])
    assert not array[:, 4:].any()
