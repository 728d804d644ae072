"""Cross-layer equalization: the float model stays, ranges of channels meet, and int8 per tensor gains."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from models import Builder, conv_chain, samples

from deburr.ir.onnx_writer import to_proto

from .quantizing import mobilenet, ops, optimized, outputs, quality, quantized, sqnr


def unequal(activation: str = "Relu", **attributes: object) -> onnx.ModelProto:
    """Convolution, depthwise convolution, pooling and Gemm: channels differ by up to 100 in range, and the second evens out."""
    builder = Builder()
    x = builder.conv("x", 3, 16)
    random = np.random.default_rng(5)
    factors = np.exp(random.uniform(-2.3, 2.3, 16)).astype(np.float32)
    _scale(builder, {0: factors.reshape(16, 1, 1, 1), 1: factors})
    slope = [builder.constant(random.uniform(0.1, 0.5, (16, 1, 1)).astype(np.float32))] if activation == "PRelu" else []
    x = builder.node(activation, [x, *slope], **attributes)
    x = builder.conv(x, 16, 16, group=16)
    _scale(builder, {len(builder.initializers) - 2: 1 / factors.reshape(16, 1, 1, 1)})
    x = builder.node("MaxPool", [x], kernel_shape=[2, 2], strides=[2, 2])
    x = builder.node("Flatten", [builder.node("Relu", [x])])
    builder.gemm(x, 16 * 16, 10, "y")
    return builder.model({"x": ["batch", 3, 8, 8]}, {"y": ["batch", 10]})


def _scale(builder: Builder, factors: dict[int, np.ndarray]) -> None:
    for index, factor in factors.items():
        old = builder.initializers[index]
        builder.initializers[index] = onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(old) * factor, old.name)


@pytest.mark.parametrize(
    ("activation", "attributes"), [("Relu", {}), ("LeakyRelu", {"alpha": 0.2}), ("PRelu", {}), ("Identity", {})]
)
def test_the_float_model_stays_and_ranges_meet(activation, attributes):
    proto = unequal(activation, **attributes)
    context = optimized(proto, "equalize-layers")
    assert sqnr(outputs(proto, samples(proto))[0], outputs(to_proto(context.model), samples(proto))[0]) > 100
    first, depthwise, last = (node.input(1).array for node in context.model.graph.nodes if node.op in ("Conv", "Gemm"))
    given, through = (np.abs(array).max(axis=(1, 2, 3)) for array in (first, depthwise))
    assert np.allclose(given, through, rtol=0.01)
    assert np.allclose(through, np.abs(last).reshape(10, 16, 16).max(axis=(0, 2)), rtol=0.01)
    assert context.remarks == []


def test_int8_gains_where_channels_were_unequal():
    """One scale serves all channels of an activation: those of small range lost nearly everything."""
    proto = unequal()
    plain, equal = (
        quality(proto, quantized(proto, f"{first}quantize{{rounding=nearest}}")) for first in ("", "equalize-layers,")
    )
    assert equal > plain + 3  # decibels


def test_a_bound_becomes_one_for_each_channel():
    proto = mobilenet()
    kept = optimized(proto, "equalize-layers")
    assert {remark.reason.split(": ")[1] for remark in kept.remarks if "has a bound" in remark.reason}
    assert kept.remarks[-1].hint in ("clip=bounds gives each channel a bound of its own", "")
    context = optimized(proto, "equalize-layers{clip=bounds}")
    result = to_proto(context.model)
    onnx.checker.check_model(result, full_check=True)
    assert ops(result)["Min"] == ops(proto)["Clip"] - ops(result)["Clip"] > 3
    data = {"x": 3 * samples(proto)["x"]}  # the bounds do bind
    assert sqnr(outputs(proto, data)[0], outputs(result, data)[0]) > 90


def test_a_bound_that_no_sample_reaches_may_fall():
    builder = Builder()
    low, high = builder.constant(np.float32(0)), builder.constant(np.float32(6))
    for place, scale in (("far", 0.1), ("near", 10.0)):
        x = builder.node("Mul", ["x", builder.constant(np.float32(scale))])
        x = builder.node("Clip", [builder.conv(x, 3, 8), low, high], f"{place}_clip")
        builder.conv(x, 8, 4, output=place)
    proto = builder.model({"x": ["n", 3, 8, 8]}, {"far": ["n", 4, 8, 8], "near": ["n", 4, 8, 8]})
    context = optimized(proto, "equalize-layers{clip=relu}")
    assert ops(context.model)["Clip"] == ops(context.model)["Relu"] == 1
    (remark,) = (remark for remark in context.remarks if "reaches" in remark.reason)
    assert "the calibration data reaches a bound of Clip" in remark.reason
    data = samples(proto, 40)
    for before, after in zip(outputs(proto, data), outputs(to_proto(context.model), data), strict=True):
        assert sqnr(before, after) > 100


def test_a_value_with_another_reader_stays():
    builder = Builder()
    x = builder.node("Relu", [builder.conv("x", 3, 8)])
    y = builder.conv(x, 8, 8)
    builder.node("Add", [x, y], "y")
    proto = builder.model({"x": ["n", 3, 8, 8]}, {"y": ["n", 8, 8, 8]})
    context = optimized(proto, "equalize-layers")
    assert (
        to_proto(context.model).SerializeToString() == to_proto(optimized(proto, "remove-dead-code").model).SerializeToString()
    )
    assert any("is used elsewhere as well" in remark.reason for remark in context.remarks)


def test_chains_through_batch_norm_are_told_to_fold_it():
    context = optimized(conv_chain(), "equalize-layers")
    assert any("BatchNormalization" in remark.reason for remark in context.remarks)
