"""Weights as integers in the file: smaller, without calibration data, the same numbers as rounded float weights give."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from models import Builder, conv_chain, perceptron, samples
from onnx import TensorProto, helper

from deburr.ir.onnx_reader import read
from deburr.ir.onnx_writer import to_proto
from deburr.ir.types import DType
from deburr.passes.core import Context
from deburr.passes.manager import run
from deburr.passes.pipeline import parse
from deburr.passes.quantize.arithmetic import round_trip, symmetric

from .quantizing import mobilenet, ops, outputs, quality, quantized, sqnr


def stored(proto: onnx.ModelProto, pipeline: str = "quantize-weights") -> tuple[onnx.ModelProto, list[str]]:
    """The emitted model and the remarks, without data."""
    context = Context(read(proto))
    run(parse(pipeline), context)
    result = to_proto(context.model)
    onnx.checker.check_model(result, full_check=True)
    return result, [str(remark) for remark in context.remarks]


def kinds(proto: onnx.ModelProto) -> dict[str, int]:
    """Element type of every initializer with more than one axis."""
    return {tensor.name: tensor.data_type for tensor in proto.graph.initializer if len(tensor.dims) > 1}


def wide() -> onnx.ModelProto:
    return perceptron((64, 128, 32))


def embedding(opset: int = 17) -> onnx.ModelProto:
    """Tokens looked up in a table, which the last layer reads too."""
    builder = Builder()
    table = builder.weight(100, 32, scale=1.0, name="table")
    builder.node("Gather", [table, "tokens"], "embedded")
    builder.nodes.append(helper.make_node("Reshape", ["embedded", builder.constant(np.array([-1, 32]))], ["flat"]))
    builder.node("Gemm", ["flat", table], "y", transB=1)
    graph = helper.make_graph(
        builder.nodes, "tiny", [helper.make_tensor_value_info("tokens", TensorProto.INT64, ["n", 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in
         (("y", ["m", 100]), ("embedded", ["n", 3, 32]))], builder.initializers,
    )  # fmt: skip
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", opset)])


def test_activations_stay_float_and_the_file_is_a_quarter():
    proto = wide()
    result, _ = stored(proto)
    assert ops(result)["QuantizeLinear"] == 0
    assert ops(result)["DequantizeLinear"] == 2
    assert result.ByteSize() < 0.35 * proto.ByteSize()
    assert quality(proto, result) > 35


def test_the_numbers_are_those_of_rounded_weights():
    proto = wide()
    result, _ = stored(proto)
    rounded = onnx.ModelProto()
    rounded.CopyFrom(proto)
    for tensor in rounded.graph.initializer:
        if len(tensor.dims) > 1:
            array = onnx.numpy_helper.to_array(tensor)
            array = round_trip(array, symmetric(np.abs(array).max(axis=1), DType.INT8, 0))
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    data = samples(proto, 8)
    for optimize in (False, True):
        np.testing.assert_array_equal(outputs(rounded, data, optimize)[0], outputs(result, data, optimize)[0])


def test_data_makes_the_rounding_better():
    proto = mobilenet()
    nearest = quality(proto, quantized(proto, "clean,quantize-weights{bits=4,rounding=nearest}"))
    assert quality(proto, quantized(proto, "clean,quantize-weights{bits=4}")) > nearest + 2


def test_4_bits_where_a_layer_has_enough_weights():
    result, _ = stored(conv_chain((3, 16, 24)), "clean,quantize-weights{bits=4}")
    # 27 weights for each output of the stem, 24 for each of the classifier's.
    assert sorted(kinds(result).values()) == [TensorProto.INT8, TensorProto.INT8, TensorProto.INT4]
    assert {item.version for item in result.opset_import if item.domain == ""} == {21}


def test_a_table_is_looked_up_as_integers():
    proto = embedding()
    result, _ = stored(proto)
    producers = {name: node for node in result.graph.node for name in node.output}
    dequantize = producers["embedded"]
    assert dequantize.op_type == "DequantizeLinear"
    assert producers[dequantize.input[0]].op_type == "Gather"
    assert set(kinds(result).values()) == {TensorProto.INT8}
    data = {"tokens": np.arange(12).reshape(4, 3)}
    for wanted, given in zip(outputs(proto, data), outputs(result, data), strict=True):
        assert sqnr(wanted, given) > 40


@pytest.mark.parametrize("op", ["LSTM", "GRU"])
def test_recurrent_layers(op):
    builder, gates = Builder(), {"LSTM": 4, "GRU": 3}[op]
    weights = builder.weight(1, gates * 16, 32), builder.weight(1, gates * 16, 16)
    builder.node(op, ["x", *weights], "y", hidden_size=16)
    proto = builder.model({"x": [5, 2, 32]}, {"y": [5, 1, 2, 16]})
    result, _ = stored(proto)
    assert set(kinds(result).values()) == {TensorProto.INT8}
    assert quality(proto, result) > 35


def test_weights_that_two_branches_read_are_stored_once():
    builder = Builder()
    weight = builder.weight(32, 32)

    def branch(op: str) -> onnx.GraphProto:
        nodes = [helper.make_node("MatMul", ["x", weight], [f"{op}_in"]), helper.make_node(op, [f"{op}_in"], [f"{op}_out"])]
        return helper.make_graph(nodes, op, [], [helper.make_tensor_value_info(f"{op}_out", TensorProto.FLOAT, ["n", 32])])

    total = builder.node("ReduceSum", ["x"], keepdims=0)
    condition = builder.node("Greater", [total, builder.constant(np.float32(0))])
    builder.node("If", [condition], "y", then_branch=branch("Relu"), else_branch=branch("Tanh"))
    proto = builder.model({"x": ["n", 32]}, {"y": ["n", 32]})
    result, _ = stored(proto)
    assert list(kinds(result).values()) == [TensorProto.INT8]
    assert [node.op_type for node in result.graph.node][:1] != ["If"]
    assert quality(proto, result) > 35


def test_what_stays_float_is_said():
    builder = Builder()
    small, shared = builder.weight(4, 4), builder.weight(32, 32)
    x = builder.node("MatMul", [builder.node("MatMul", ["x", small]), builder.weight(4, 32)])
    builder.node("Add", [builder.node("MatMul", [x, shared]), shared], "y")
    result, remarks = stored(builder.model({"x": [32, 4]}, {"y": [32, 32]}))
    assert remarks == [
        "quantize-weights: %w0: float[4, 4]: stays float: as integers it would not be smaller",
        "quantize-weights: %w1: float[32, 32]: stays float: Add 'Add_3' reads it too",
        "quantize-weights: %w2: float[4, 32]: stays float: as integers it would not be smaller",
    ]
    assert ops(result)["DequantizeLinear"] == 0


def test_without_data_it_says_that_it_rounds_to_the_nearest():
    _, remarks = stored(wide())
    assert remarks == [
        "quantize-weights: tiny: weights are rounded to the nearest: there is no calibration data (give --data FILE.npz)"
    ]
