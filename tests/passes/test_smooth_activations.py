"""SmoothQuant: the float model stays, outlying channels no longer decide the scale of an activation."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from models import Builder, perceptron, samples

from deburr.ir.errors import DeburrError
from deburr.ir.onnx_writer import to_proto

from .quantizing import ops, optimized, outputs, quality, quantized, sqnr

WIDTH, TOKENS, HEADS = 16, 6, 2


def block(norm: str = "fused") -> onnx.ModelProto:
    """A transformer block: attention and a perceptron behind normalizations, two of whose channels stick out by 40."""
    builder = Builder()
    x = _norm(builder, "x", norm)
    q, k, v = (_heads(builder, _linear(builder, x, WIDTH, WIDTH)) for _ in range(3))
    scores = builder.node("MatMul", [q, builder.node("Transpose", [k], perm=[0, 1, 3, 2])])
    read = builder.node("MatMul", [builder.node("Softmax", [scores], axis=-1), v])
    shape = builder.constant(np.array([0, TOKENS, WIDTH]))
    joined = builder.node("Reshape", [builder.node("Transpose", [read], perm=[0, 2, 1, 3]), shape])
    x = builder.node("Add", ["x", _linear(builder, joined, WIDTH, WIDTH)])
    hidden = builder.node("Relu", [_linear(builder, _norm(builder, x, norm), WIDTH, 4 * WIDTH)])
    builder.node("Add", [x, _linear(builder, hidden, 4 * WIDTH, WIDTH)], "y")
    return builder.model({"x": ["batch", TOKENS, WIDTH]}, {"y": ["batch", TOKENS, WIDTH]})


def _linear(builder: Builder, x: str, before: int, after: int) -> str:
    weight = builder.weight(before, after, scale=before**-0.5)
    return builder.node("Add", [builder.node("MatMul", [x, weight]), builder.weight(after, scale=0.1)])


def _heads(builder: Builder, x: str) -> str:
    shape = builder.constant(np.array([0, TOKENS, HEADS, WIDTH // HEADS]))
    return builder.node("Transpose", [builder.node("Reshape", [x, shape])], perm=[0, 2, 1, 3])


def _norm(builder: Builder, x: str, form: str) -> str:
    scale = np.where(np.isin(np.arange(WIDTH), (3, 9)), 40, 1).astype(np.float32)
    factors = builder.constant(scale), builder.weight(WIDTH, scale=0.1)
    if form == "fused":
        return builder.node("LayerNormalization", [x, *factors], axis=-1)
    centred = builder.node("Sub", [x, builder.node("ReduceMean", [x], axes=[-1])])
    variance = builder.node("ReduceMean", [builder.node("Mul", [centred, centred])], axes=[-1])
    root = builder.node("Sqrt", [builder.node("Add", [variance, builder.constant(np.float32(1e-5))])])
    return builder.node("Add", [builder.node("Mul", [builder.node("Div", [centred, root]), factors[0]]), factors[1]])


@pytest.mark.parametrize("norm", ["fused", "decomposed"])
def test_a_transformer_with_outliers(norm):
    proto = block(norm)
    context = optimized(proto, "smooth-activations")
    smooth = to_proto(context.model)
    assert ops(smooth) == ops(proto)
    assert sqnr(outputs(proto, samples(proto))[0], outputs(smooth, samples(proto))[0]) > 90
    assert [remark.where for remark in context.remarks if "Reshape" in remark.reason]  # behind the heads there is no place
    before = quality(proto, quantized(proto, "quantize{observer=minmax,rounding=nearest}"))
    after = quality(proto, quantized(proto, "smooth-activations,quantize{observer=minmax,rounding=nearest}"))
    assert after > before + 3  # decibels


def test_a_mul_is_inserted_where_asked():
    proto = block()
    smooth = optimized(proto, "smooth-activations{insert=true}")
    assert ops(smooth.model)["Mul"] == 1  # in front of the projection behind the heads
    assert sqnr(outputs(proto, samples(proto))[0], outputs(to_proto(smooth.model), samples(proto))[0]) > 90
    assert smooth.remarks == []


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_alpha_decides_who_gets_the_range(alpha):
    builder = Builder()
    x = builder.node("LayerNormalization", ["x", builder.constant(np.array([1, 50, 2, 1], np.float32))], axis=-1)
    builder.node("MatMul", [x, builder.weight(4, 8)], "y")
    proto = builder.model({"x": ["n", 4]}, {"y": ["n", 8]})
    context = optimized(proto, f"smooth-activations{{alpha={alpha}}}")
    norm, product = context.model.graph.nodes
    scaled, weights = outputs_of(context, norm.output().name), np.abs(product.input(1).array).max(axis=1)
    equal = scaled if alpha == 1 else weights
    assert np.allclose(equal, equal[0], rtol=1e-4)


def outputs_of(context, name: str) -> np.ndarray:
    from deburr.ir.evaluate import Evaluator

    found = Evaluator(context.model, capture=[name]).run(dict(context.data.inputs))[name]
    return np.abs(found).max(axis=0)


def test_alpha_out_of_range():
    with pytest.raises(DeburrError) as caught:
        optimized(perceptron(), "smooth-activations{alpha=1.5}")
    assert "E203" in str(caught.value)
    assert "an alpha of 1.5" in str(caught.value)


def swish_chain(form: str) -> onnx.ModelProto:
    """Two convolutions behind x * clip(x + 3, 0, 6) / 6. The channels of the first have ranges from 1/30 to 30; the first
    convolution is depthwise, and its weights level them out.

    :param form: divided: the constant 6 stands last; affine: a scale and a shift for all channels follow; fused: HardSwish.
    """
    builder = Builder()
    ranges = np.geomspace(1 / 30, 30, 8).reshape(8, 1, 1)
    x = builder.node("Mul", ["x", builder.constant(ranges.astype(np.float32))])
    levelling = (builder.random.standard_normal((8, 1, 3, 3)) / ranges[..., None]).astype(np.float32)
    for layer in ("depthwise", "pointwise"):
        if form == "fused":
            x = builder.node("HardSwish", [x])
        else:
            three, zero, six = (builder.constant(np.float32(bound)) for bound in (3, 0, 6))
            gate = builder.node("Clip", [builder.node("Add", [x, three]), zero, six])
            x = builder.node("Div", [builder.node("Mul", [x, gate]), six])
        if form == "affine":
            scale, shift = (builder.constant(np.array([number], np.float32)) for number in (1.5, 0.1))
            x = builder.node("Add", [builder.node("Mul", [scale, x]), shift])
        depthwise = layer == "depthwise"
        x = builder.node("Conv", [x, builder.constant(levelling)], group=8) if depthwise else builder.conv(x, 8, 8, 1)
    builder.node("Identity", [x], "y")
    return builder.model({"x": ["batch", 8, 6, 6]}, {"y": ["batch", 8, 4, 4]})


@pytest.mark.parametrize("form", ["divided", "affine"])
def test_convolutions_behind_a_swish(form):
    """What is one number for all channels becomes one for each, and takes the division."""
    proto = swish_chain(form)
    context = optimized(proto, "smooth-activations{layers=conv}")
    smooth = to_proto(context.model)
    assert context.remarks == []
    assert ops(smooth) == ops(proto)
    assert sqnr(outputs(proto, samples(proto))[0], outputs(smooth, samples(proto))[0]) > 90
    before = quality(proto, quantized(proto, "clean,quantize{observer=minmax,rounding=nearest}"))
    after = quality(proto, quantized(proto, "clean,smooth-activations{layers=conv},quantize{observer=minmax,rounding=nearest}"))
    assert after > before + 3  # decibels


def test_a_swish_in_one_operator_takes_no_division():
    proto = swish_chain("fused")
    context = optimized(proto, "smooth-activations{layers=conv}")
    assert [remark.reason for remark in context.remarks] == [
        f"its data was not smoothed: HardSwish 'HardSwish_{index}' stands in front" for index in (1, 3)
    ]
    assert to_proto(context.model) == to_proto(optimized(proto, "remove-dead-code").model)
    inserted = optimized(proto, "smooth-activations{layers=conv,insert=true}")
    assert ops(inserted.model)["Mul"] == 3
    assert sqnr(outputs(proto, samples(proto))[0], outputs(to_proto(inserted.model), samples(proto))[0]) > 90


def test_a_depthwise_convolution_takes_all_of_the_range():
    """Its weights have a scale for each channel: data of one range costs them nothing, whatever alpha is."""
    builder = Builder()
    x = builder.node("Mul", ["x", builder.constant(np.array([1, 50, 2, 1], np.float32).reshape(4, 1, 1))])
    builder.conv(x, 4, 4, output="y", group=4)
    proto = builder.model({"x": ["batch", 4, 5, 5]}, {"y": ["batch", 4, 5, 5]})
    model = optimized(proto, "smooth-activations{layers=conv,alpha=0.1}").model
    largest = np.abs(samples(proto, 40)["x"]).max(axis=(0, 2, 3))
    [factor] = [node.input(1).array for node in model.graph.nodes if node.op == "Mul"]
    np.testing.assert_allclose(np.abs(factor).ravel() * largest, 1, rtol=1e-5)
