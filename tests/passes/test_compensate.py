"""Compensation: im2col and regression against direct computation, and that it mends what pruning broke."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import Builder, branch_on_sum, conv_chain, perceptron, residual_block

from deburr.ir.errors import DeburrError
from deburr.ir.evaluate import Evaluator
from deburr.ir.onnx_reader import read
from deburr.ir.onnx_writer import to_proto
from deburr.ir.samples import Samples
from deburr.passes.clean.fold_batch_norm import FoldBatchNorm
from deburr.passes.core import Context
from deburr.passes.linear.layers import Layer, layer_of
from deburr.passes.linear.prefix import capture_prefix
from deburr.passes.linear.regression import Moments
from deburr.passes.prune.channels import PruneChannels
from deburr.passes.prune.compensate import Compensate


@settings(max_examples=40, deadline=None)
@given(
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    strides=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    dilations=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    pads=st.tuples(*[st.integers(0, 2)] * 4),
    groups=st.sampled_from([1, 2, 4]),
)
def test_a_layer_as_a_matrix_gives_the_convolution(kernel, strides, dilations, pads, groups):
    builder = Builder()
    weight, bias = builder.weight(8, 4 // groups, *kernel), builder.weight(8)
    attributes = {"strides": strides, "dilations": dilations, "pads": pads, "group": groups}
    builder.node("Conv", ["x", weight, bias], "y", **attributes)
    model = read(builder.model({"x": ["batch", 4, 7, 6]}, {"y": ["batch", 8, None, None]}))
    x = np.random.default_rng(0).standard_normal((2, 4, 7, 6)).astype(np.float32)
    y = Evaluator(model, threads=1).run({"x": x})["y"]
    layer = layer_of(next(model.graph.nodes))
    assert isinstance(layer, Layer)
    made = layer.rows(x) @ layer.matrix() + layer.offset()[:, None]
    np.testing.assert_allclose(made, layer.targets(y), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(layer.weights_of(layer.matrix()), layer.weight.array)


def test_the_fit_is_the_least_squares_solution():
    random = np.random.default_rng(0)
    x = random.standard_normal((1, 300, 5)).astype(np.float32) + 2
    y = random.standard_normal((1, 300, 3)).astype(np.float32)
    moments = Moments()
    for start in range(0, 300, 70):
        moments.add(x[:, start : start + 70], y[:, start : start + 70])
    weight, bias = moments.fit(np.zeros((1, 5, 3)), 0.0)
    expected, *_ = np.linalg.lstsq(np.c_[x[0], np.ones(300)].astype(np.float64), y[0], rcond=None)
    np.testing.assert_allclose(np.r_[weight[0], bias], expected, atol=1e-4)


def test_damping_pulls_towards_the_weights_as_they_are():
    random = np.random.default_rng(0)
    x, y = (random.standard_normal((1, 50, size)).astype(np.float32) for size in (4, 2))
    start = random.standard_normal((1, 4, 2))
    moments = Moments()
    moments.add(x, y)
    steps = [np.abs(moments.fit(start, damping)[0] - start).max() for damping in (0.0, 1.0, 1e6)]
    assert steps[0] > steps[1] > steps[2]
    assert steps[2] < 1e-5


def _data(shape, count=64, seed=3):
    return Samples({"x": np.random.default_rng(seed).standard_normal((count, *shape)).astype(np.float32)})


def _error(model, reference, data):
    before, after = (Evaluator(m, threads=1).run(data.inputs)["y"] for m in (reference, model))
    return float(((after - before) ** 2).mean() / before.var())


@pytest.mark.parametrize(
    ("proto", "shape"),
    [
        (conv_chain((3, 16, 16)), (3, 8, 8)),
        (residual_block(16), (3, 8, 8)),
        (residual_block(16, shortcut=True), (3, 8, 8)),
        (perceptron((16, 64, 32, 10)), (16,)),
    ],
)
def test_it_mends_most_of_what_pruning_broke(proto, shape):
    model, data = read(proto), _data(shape, 128)
    context = Context(model, data=data)
    PruneChannels(ratio=0.4, round_to=1).run(model.graph, context)
    fresh = _data(shape, 128, seed=9)  # samples that the fit has not seen
    broken = _error(model, read(proto), fresh)
    Compensate().run(model.graph, context)
    assert _error(model, read(proto), fresh) < 0.5 * broken


def test_redundant_channels_are_made_up_for_exactly():
    """Half of the hidden channels are copies: without them the model can still give the same numbers."""
    builder = Builder()
    weight = builder.random.standard_normal((6, 3, 3, 3)).astype(np.float32)
    x = builder.node("Relu", [builder.node("Conv", ["x", builder.constant(np.concatenate([weight, weight]))], pads=[1] * 4)])
    builder.conv(x, 12, 5, 1, "y")
    proto = builder.model({"x": ["batch", 3, 8, 8]}, {"y": ["batch", 5, 8, 8]})
    model, data = read(proto), _data((3, 8, 8))
    context = Context(model, data=data)
    PruneChannels(ratio=0.5, round_to=1, criterion="reconstruction", budget="channels").run(model.graph, context)
    assert next(model.graph.nodes).input(1).shape == (6, 3, 3, 3)
    Compensate(damping=1e-6).run(model.graph, context)
    assert _error(model, read(proto), _data((3, 8, 8), seed=9)) < 1e-6


def test_without_pruning_it_says_so():
    model = read(conv_chain())
    context = Context(model, data=_data((3, 8, 8)))
    revision = model.revision
    Compensate().run(model.graph, context)
    assert model.revision == revision
    assert context.remarks[0].reason == "nothing was pruned"


def test_without_data_it_is_refused():
    model = read(conv_chain())
    with pytest.raises(DeburrError, match=r"error\[E206\]: compensation needs calibration data, pass compensate"):
        Compensate().run(model.graph, Context(model))


def test_the_same_data_gives_the_same_bytes():
    def made():
        model = read(conv_chain((3, 16, 16)))
        context = Context(model, data=_data((3, 8, 8)))
        PruneChannels(ratio=0.5).run(model.graph, context)
        Compensate(rows=500).run(model.graph, context)
        return to_proto(model).SerializeToString(deterministic=True)

    assert made() == made()


def test_a_prefix_leaves_the_model_alone():
    model = read(residual_block())
    revision, names = model.revision, [value.name for value in model.graph.values]
    data = _data((3, 8, 8), 10)
    middle = next(node for node in model.graph.nodes if node.op == "Add").output()
    found = np.concatenate([batch[0] for batch in capture_prefix(model, [middle], data, 4)])
    expected = Evaluator(model, capture=[middle.name], threads=1).run(data.inputs)[middle.name]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert (model.revision, [value.name for value in model.graph.values]) == (revision, names)


def test_a_prefix_with_subgraphs():
    model = read(branch_on_sum())
    holder = next(node for node in model.graph.nodes if node.op == "If")
    data = Samples({"x": np.ones((4,), np.float32)})
    (found,) = next(iter(capture_prefix(model, [holder.output()], data, 4)))
    assert found.shape == (4,)
    assert all(graph.parent is holder for graph in holder.subgraphs)


def test_batch_norm_may_be_folded_between_pruning_and_compensation():
    """What the convolution gives is then another number: it has to be held against what the norm gave before."""
    builder = Builder()
    scale, shift, mean, variance = (builder.constant(np.full(5, value, np.float32)) for value in (3, 0.5, 0.2, 0.1))
    inner = builder.conv(builder.node("Relu", [builder.conv("x", 3, 16)]), 16, 5)
    builder.node("Relu", [builder.node("BatchNormalization", [inner, scale, shift, mean, variance])], "y")
    proto = builder.model({"x": ["batch", 3, 8, 8]}, {"y": ["batch", 5, 8, 8]})
    model, fresh = read(proto), _data((3, 8, 8), seed=9)
    context = Context(model, data=_data((3, 8, 8)))
    PruneChannels(ratio=0.3, round_to=1).run(model.graph, context)
    broken = _error(model, read(proto), fresh)
    FoldBatchNorm().run(model.graph, context)
    assert [node.op for node in model.graph.nodes] == ["Conv", "Relu", "Conv", "Relu"]
    Compensate().run(model.graph, context)
    assert _error(model, read(proto), fresh) < 0.5 * broken
