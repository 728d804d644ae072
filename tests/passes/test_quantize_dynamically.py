"""Matrix products with scales measured at run time: ONNX Runtime fuses them, and no calibration data is needed."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from models import Builder, conv_chain, perceptron, samples
from onnx.reference import ReferenceEvaluator

from deburr.ir.onnx_reader import read
from deburr.ir.onnx_writer import to_proto
from deburr.passes.core import Context
from deburr.passes.manager import run
from deburr.passes.pipeline import parse

from .quantizing import fused, ops, outputs, quality, quantized


def dynamic(proto: onnx.ModelProto, pipeline: str = "quantize-dynamically") -> tuple[onnx.ModelProto, list[str]]:
    """The emitted model and the remarks, without data."""
    context = Context(read(proto))
    run(parse(pipeline), context)
    result = to_proto(context.model)
    onnx.checker.check_model(result, full_check=True)
    onnx.shape_inference.infer_shapes(result, check_type=True, strict_mode=True, data_prop=True)
    return result, [str(remark) for remark in context.remarks]


def attention() -> onnx.ModelProto:
    """Three projections of one input, and the products of what they give."""
    builder = Builder()
    query, key, value = (builder.node("MatMul", ["x", builder.weight(64, 64, scale=0.1)]) for _ in range(3))
    query = builder.node("Add", [query, builder.weight(64)])
    scores = builder.node("Softmax", [builder.node("MatMul", [query, builder.node("Transpose", [key], perm=[0, 2, 1])])])
    builder.node("MatMul", [builder.node("MatMul", [scores, value]), builder.weight(64, 32, scale=0.1)], "y")
    return builder.model({"x": ["n", 6, 64]}, {"y": ["n", 6, 32]})


@pytest.mark.parametrize("proto", [perceptron((64, 128, 32)), attention()], ids=["perceptron", "attention"])
def test_near_the_float_model_and_smaller(proto):
    result, _ = dynamic(proto)
    assert quality(proto, result) > 27
    assert result.ByteSize() < 0.45 * proto.ByteSize()


def test_onnx_runtime_fuses_it(tmp_path):
    assert fused(dynamic(perceptron((64, 128, 32)))[0], tmp_path) == {"DynamicQuantizeMatMul": 2, "Relu": 1}


def test_data_that_several_products_read_is_quantized_once(tmp_path):
    result, _ = dynamic(attention())
    assert ops(result)["DynamicQuantizeLinear"] == 2
    assert ops(result)["MatMulInteger"] == 4
    counts = fused(result, tmp_path)
    assert counts["MatMulIntegerToFloat"] == 3
    assert counts["DynamicQuantizeMatMul"] == 1


def test_the_numbers_are_those_of_the_reference_evaluator():
    proto = perceptron((64, 128, 32))
    result, data = dynamic(proto)[0], samples(proto, 8)
    wanted = ReferenceEvaluator(result).run(None, data)[0]
    for optimize in (False, True):
        np.testing.assert_allclose(outputs(result, data, optimize)[0], wanted, rtol=1e-4, atol=1e-4)


def test_the_forms_of_gemm():
    builder = Builder()
    x = builder.node("Gemm", ["x", builder.weight(64, 48, scale=0.1), builder.weight(1, 48)], alpha=0.5, beta=2.0)
    builder.node("Gemm", [x, builder.weight(24, 48, scale=0.1), builder.weight(1)], "y", alpha=-1.0, transB=1)
    proto = builder.model({"x": ["n", 64]}, {"y": ["n", 24]})
    result, remarks = dynamic(proto)
    assert ops(result)["MatMulInteger"] == 2
    assert quality(proto, result) > 30
    assert not any("left in float" in remark for remark in remarks)


def test_weights_tied_between_matmul_and_gemm():
    builder = Builder()
    tied = builder.weight(32, 32, scale=0.2)
    hidden = builder.node("Relu", [builder.node("MatMul", ["x", tied])])
    builder.node("Gemm", [hidden, tied], "y", transB=1)
    proto = builder.model({"x": ["n", 32]}, {"y": ["n", 32]})
    result, _ = dynamic(proto)
    assert {tensor.data_type for tensor in result.graph.initializer if len(tensor.dims) == 2} == {onnx.TensorProto.INT8}
    assert quality(proto, result) > 30


def test_data_makes_the_rounding_better():
    proto = perceptron((64, 16, 10))
    nearest = quality(proto, quantized(proto, "quantize-dynamically{rounding=nearest}"))
    assert quality(proto, quantized(proto, "quantize-dynamically")) > nearest


def test_what_stays_float_is_said():
    builder = Builder()
    x = builder.node("Flatten", [builder.conv("x", 3, 4)])
    builder.node("Gemm", [x, builder.node("Relu", [builder.weight(64, 8)])], "y")
    _, remarks = dynamic(builder.model({"x": ["n", 3, 4, 4]}, {"y": ["n", 8]}))
    assert remarks == [
        "quantize-dynamically: Conv 'Conv_0': left in float: there is no dynamic Conv",
        "quantize-dynamically: Gemm 'Gemm_3': left in float: its weights are not constant",
    ]


def test_a_convolution_before_it_stays_as_it_is():
    proto = conv_chain((3, 16, 64))
    result, _ = dynamic(proto)
    assert (ops(result)["Conv"], ops(result)["MatMulInteger"]) == (2, 1)
    assert quality(proto, result) > 30


def test_zeros_give_the_bias():
    """Data without range: its scale is measured as 0 or 1, and nothing becomes NaN."""
    proto = perceptron((16, 10))
    result = dynamic(proto)[0]
    data = {"x": np.zeros((3, 16), np.float32)}
    for optimize in (False, True):
        np.testing.assert_allclose(outputs(result, data, optimize)[0], outputs(proto, data)[0], atol=1e-6)
