"""insert-qdq and quantize: what ONNX Runtime fuses, what stays the same, what is left alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from models import Builder, concat_branches, conv_chain, depthwise_separable, perceptron, residual_block, samples

from deburr.ir.onnx_reader import read
from deburr.ir.onnx_writer import to_proto
from deburr.ir.text import print_graph
from deburr.passes.core import Context
from deburr.passes.manager import run
from deburr.passes.pipeline import parse

from .quantizing import fused, mobilenet, ops, optimized, outputs, quality, quantized, resnet, sqnr

BORDER = {"QuantizeLinear": 1, "Transpose": 2}  # into integers, and to the channels-last layout of ONNX Runtime's kernels


def test_resnet18_fuses_entirely(tmp_path: Path) -> None:
    result = quantized(resnet())
    wanted = {"QLinearConv": 10, "QLinearAdd": 4, "NhwcMaxPool": 1, "QLinearGlobalAveragePool": 1, "Flatten": 1, "QGemm": 1}
    assert fused(result, tmp_path) == {**BORDER, **wanted}
    assert quality(resnet(), result) > 25


def test_resnet50_fuses_entirely(tmp_path: Path) -> None:
    result = quantized(resnet(bottleneck=True))
    wanted = {"QLinearConv": 15, "QLinearAdd": 4, "NhwcMaxPool": 1, "QLinearGlobalAveragePool": 1, "Flatten": 1, "QGemm": 1}
    assert fused(result, tmp_path) == {**BORDER, **wanted}
    assert quality(resnet(bottleneck=True), result) > 25


def test_mobilenet_fuses_entirely(tmp_path: Path) -> None:
    result = quantized(mobilenet())
    wanted = {"QLinearConv": 11, "QLinearAdd": 2, "QLinearGlobalAveragePool": 1, "Flatten": 1, "QGemm": 1}
    assert fused(result, tmp_path) == {**BORDER, **wanted}
    assert not ops(result)["Clip"]
    assert quality(mobilenet(), result) > 20


def test_the_trained_network_of_the_demo_fuses_entirely(tmp_path: Path) -> None:
    folder = Path(__file__).parents[2] / "examples" / "fashion_mnist"
    data = {"image": np.load(folder / "calibration.npz")["image"][:32]}
    context = optimized(onnx.load(folder / "model.onnx"), "clean,quantize{observer=minmax,rounding=nearest}", data=data)
    wanted = {"QLinearConv": 15, "QLinearAdd": 6, "QLinearGlobalAveragePool": 1, "Flatten": 1, "QGemm": 1}
    assert fused(to_proto(context.model), tmp_path) == {**BORDER, **wanted}


def test_concat_and_pooling_fuse(tmp_path: Path) -> None:
    counts = fused(quantized(concat_branches()), tmp_path)
    assert counts["QLinearConv"] == 3
    assert counts["QLinearConcat"] == counts["NhwcMaxPool"] == 1
    assert not counts["Conv"] + counts["Concat"] + counts["MaxPool"]


def test_chain_of_gemms_fuses(tmp_path: Path) -> None:
    result = quantized(perceptron())
    assert fused(result, tmp_path) == {"QuantizeLinear": 1, "QGemm": 2}
    assert quality(perceptron(), result) > 30


@pytest.mark.parametrize("opset", [13, 17, 19, 21])
def test_every_opset_gives_the_same_fusion(opset: int, tmp_path: Path) -> None:
    result = quantized(resnet(opset=opset))
    assert result.opset_import[0].version == opset
    counts = fused(result, tmp_path)
    assert (counts["QLinearConv"], counts["Conv"], counts["QGemm"], counts["Gemm"]) == (10, 0, 1, 0)


def test_old_opset_is_raised() -> None:
    assert quantized(conv_chain(opset=11)).opset_import[0].version == 13


def test_recipe_is_the_same_as_the_pass() -> None:
    proto = residual_block()
    recipe, single = (to_proto(optimized(proto, text).model).SerializeToString() for text in ("int8", "clean,quantize"))
    assert recipe == single


def test_before_and_after() -> None:
    builder = Builder()
    x = builder.node("Relu", [builder.conv("x", 2, 4, 1)])
    builder.conv(x, 4, 2, 1, "y")
    proto = builder.model({"x": ["n", 2, 3, 3]}, {"y": ["n", 2, 3, 3]})
    graph = optimized(proto, "quantize{observer=minmax,rounding=nearest}").model.graph
    lines = [line.split("=", 1) for line in print_graph(graph).splitlines() if "= " in line and "const" not in line]
    steps = [(left.split(":")[0].strip(), right.split(" ")[1].split("(")[0]) for left, right in lines]
    assert steps == [
        ("%q_4", "QuantizeLinear"),
        ("%d", "DequantizeLinear"),
        ("%b1", "DequantizeLinear"),
        ("%w0", "DequantizeLinear"),
        ("%Conv_0_out", "Conv"),
        ("%q_5", "QuantizeLinear"),
        ("%Relu_1_out", "DequantizeLinear"),
        ("%b3", "DequantizeLinear"),
        ("%w2", "DequantizeLinear"),
        ("%f", "Conv"),
        ("%q_6", "QuantizeLinear"),
        ("%y", "DequantizeLinear"),
    ]


def test_inputs_and_outputs_keep_name_type_and_shape() -> None:
    proto = depthwise_separable()
    result = quantized(proto)
    for before, after in ((proto.graph.input, result.graph.input), (proto.graph.output, result.graph.output)):
        assert [info.SerializeToString() for info in before] == [info.SerializeToString() for info in after]
    for batch in (1, 3):
        assert outputs(result, samples(proto, batch))[0].shape[0] == batch


@pytest.mark.parametrize("second", ["quantize", "int8", "calibrate,insert-qdq", "correct-bias", "scale-weights"])
def test_quantized_models_are_left_alone(second: str) -> None:
    proto = residual_block()
    context = optimized(proto, "clean,quantize")
    before = to_proto(context.model).SerializeToString()
    run(parse(second), context)
    assert to_proto(context.model).SerializeToString() == before
    assert any("quantized already" in remark.reason for remark in context.remarks)


def test_bytes_do_not_depend_on_the_run() -> None:
    one, other = (quantized(mobilenet()).SerializeToString() for _ in range(2))
    assert one == other


def test_no_qparams_are_left() -> None:
    assert not any(value.qparams for value in optimized(residual_block(), "int8").model.graph.values)


def test_names_do_not_collide() -> None:
    proto = residual_block()
    for index, node in enumerate(proto.graph.node[:3]):
        old, new = node.output[0], ("q", "d", "s_1")[index]
        for other in proto.graph.node:
            other.input[:] = [new if name == old else name for name in other.input]
        node.output[0] = new
    assert quality(proto, quantized(proto)) > 25


def test_batch_norm_behind_relu_stays_float(tmp_path: Path) -> None:
    builder = Builder()
    x = builder.batch_norm(builder.node("Relu", [builder.conv("x", 3, 8)]), 8)
    builder.conv(x, 8, 4, output="y")
    proto = builder.model({"x": ["n", 3, 8, 8]}, {"y": ["n", 4, 8, 8]})
    context = optimized(proto, "clean,quantize")
    result = to_proto(context.model)
    assert ops(result)["BatchNormalization"] == 1
    assert [remark.reason for remark in context.remarks if remark.pass_name == "quantize"] == [
        "left in float: no integer operator in the dialect ort"
    ]
    assert fused(result, tmp_path)["QLinearConv"] == 2
    assert quality(proto, result) > 25


def test_value_that_is_an_output_and_read_on(tmp_path: Path) -> None:
    builder = Builder()
    hidden = builder.conv("x", 3, 8, output="hidden")
    builder.conv(builder.node("Relu", [hidden]), 8, 4, output="y")
    proto = builder.model({"x": ["n", 3, 8, 8]}, {"hidden": ["n", 8, 8, 8], "y": ["n", 4, 8, 8]})
    result = quantized(proto)
    assert [info.name for info in result.graph.output] == ["hidden", "y"]
    data = samples(proto, 40)
    for exact, ours in zip(outputs(proto, data), outputs(result, data), strict=True):
        assert sqnr(exact, ours) > 25
    assert fused(result, tmp_path)["QLinearConv"] == 2


def test_input_that_float_operators_read_stays_exact_for_them() -> None:
    builder = Builder()
    y = builder.conv("x", 3, 3)
    builder.node("Sub", [y, "x"], "y")
    builder.node("Exp", ["x"], "z")
    proto = builder.model({"x": ["n", 3, 4, 4]}, {"y": ["n", 3, 4, 4], "z": ["n", 3, 4, 4]})
    data = samples(proto, 40)
    exact, ours = outputs(proto, data), outputs(quantized(proto), data)
    assert np.array_equal(exact[1], ours[1])
    assert sqnr(exact[0], ours[0]) > 25


@pytest.mark.parametrize(
    ("low", "high", "kept"), [(0.0, 6.0, False), (-0.25, 0.5, False), (1.0, 6.0, True), (-3.0, -1.0, True), (0.0, 0.01, False)]
)
def test_clip_falls_only_where_the_quantizer_clamps_the_same(low: float, high: float, kept: bool) -> None:
    builder = Builder()
    bounds = [builder.constant(np.float32(bound)) for bound in (low, high)]
    x = builder.node("Clip", [builder.conv("x", 3, 8), *bounds])
    builder.conv(x, 8, 4, output="y")
    proto = builder.model({"x": ["n", 3, 8, 8]}, {"y": ["n", 4, 8, 8]})
    result = quantized(proto, "quantize{observer=minmax,rounding=nearest}")
    assert bool(ops(result)["Clip"]) == kept
    assert quality(proto, result) > 25


@pytest.mark.parametrize("group", [2, 4, 8])
def test_groups(group: int, tmp_path: Path) -> None:
    builder = Builder()
    builder.conv("x", 8, 16, output="y", group=group)
    proto = builder.model({"x": ["n", 8, 6, 6]}, {"y": ["n", 16, 6, 6]})
    result = quantized(proto)
    assert fused(result, tmp_path)["QLinearConv"] == 1
    assert quality(proto, result) > 35


@pytest.mark.parametrize("group", [1, 2])
def test_transposed_convolution(group: int) -> None:
    builder = Builder()
    weights, bias = builder.weight(8, 6 // group, 3, 3, scale=0.2), builder.weight(6, scale=1.0)
    builder.node("ConvTranspose", ["x", weights, bias], "y", group=group, strides=[2, 2])
    proto = builder.model({"x": ["n", 8, 5, 5]}, {"y": ["n", 6, 11, 11]})
    result = quantized(proto)
    scales = [onnx.numpy_helper.to_array(tensor).shape for tensor in result.graph.initializer]
    assert (6 // group,) in scales
    assert quality(proto, result) > 35
    assert np.allclose(outputs(result, samples(proto, 3), optimize=True)[0], outputs(result, samples(proto, 3))[0], atol=0.05)


def test_shared_weights_are_stored_once() -> None:
    builder = Builder()
    shared = builder.weight(8, 8, 3, 3)
    x = builder.node("Conv", ["x", shared], pads=[1] * 4)
    builder.node("Conv", [x, shared], "y", pads=[1] * 4)
    proto = builder.model({"x": ["n", 8, 6, 6]}, {"y": ["n", 8, 6, 6]})
    result = quantized(proto, "quantize{rounding=nearest}")
    assert sum(tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 4 for tensor in result.graph.initializer) == 1
    assert quality(proto, result) > 30


def test_what_is_not_quantized_says_why() -> None:
    builder = Builder()
    dynamic = builder.node("MatMul", ["x", "x"])
    plain = builder.node("Add", [dynamic, builder.weight(4, 4)])
    y = builder.node("MatMul", [plain, builder.weight(4, 4)])
    builder.node("Softmax", [y], "y")
    context = optimized(builder.model({"x": ["n", 4, 4]}, {"y": ["n", 4, 4]}), "quantize")
    assert [str(remark) for remark in context.remarks] == [
        "quantize: MatMul 'MatMul_0': left in float: its weights are not constant",
        "quantize: Add 'Add_1': left in float: it reads a constant",
        "quantize: Softmax 'Softmax_3': left in float: no integer operator in the dialect ort",
    ]


def test_nothing_is_inserted_where_nothing_was_calibrated() -> None:
    proto = residual_block()
    context = Context(read(proto))
    run(parse("clean"), context)
    before = ops(context.model)
    run(parse("insert-qdq"), context)
    assert ops(context.model) == before
    assert any("not calibrated" in remark.reason for remark in context.remarks)


def test_float16_is_left_alone() -> None:
    builder = Builder()
    builder.node("Conv", ["x", builder.constant(np.ones((2, 3, 1, 1), np.float16))], "y")
    proto = builder.model({"x": ["n", 3, 4, 4]}, {"y": ["n", 2, 4, 4]}, dtype=onnx.TensorProto.FLOAT16)
    context = optimized(proto, "quantize")
    assert ops(context.model) == {"Conv": 1}
    assert "float16" in context.remarks[-1].reason


def test_optimized_and_plain_runtime_agree() -> None:
    """The fused integer kernels compute what the Q/DQ nodes say, to within a few steps of the last layer's input."""
    result = quantized(resnet())
    data = samples(resnet(), 40)
    assert sqnr(outputs(result, data)[0], outputs(result, data, optimize=True)[0]) > 35


def test_overhead_of_a_convolution_is_small() -> None:
    """Bytes beyond the integers themselves, for each convolution of 64 channels, whose two scale vectors take 512."""
    builder, x, count = Builder(), "x", 6
    for index in range(count):
        x = builder.conv(x, 64, 64, output="y" if index == count - 1 else "")
        x = x if index == count - 1 else builder.node("Relu", [x])
    result = quantized(builder.model({"x": ["n", 64, 4, 4]}, {"y": ["n", 64, 4, 4]}))
    integers = count * (64 * 64 * 9 + 64 * 4)
    assert (result.ByteSize() - integers) / count < 1400
