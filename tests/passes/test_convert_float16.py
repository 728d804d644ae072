"""float16: half the file, near the float model, valid, and float32 wherever the schema or the numbers ask for it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from models import Builder, conv_chain, perceptron, residual_block, samples
from onnx import TensorProto, helper

from deburr.ir.errors import DeburrError
from deburr.ir.onnx_reader import read
from deburr.ir.onnx_writer import to_proto
from deburr.ir.samples import Samples
from deburr.passes.core import Context
from deburr.passes.manager import run
from deburr.passes.pipeline import parse

from .quantizing import mobilenet, ops, outputs, quality, resnet, sqnr

HALF, FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT


def converted(
    proto: onnx.ModelProto, pipeline: str = "convert-float16", data: dict | None = None
) -> tuple[onnx.ModelProto, list[str]]:
    """The emitted model, held to its types, and the remarks."""
    context = Context(read(proto), data=Samples(data) if data is not None else None)
    run(parse(pipeline), context)
    result = to_proto(context.model)
    onnx.checker.check_model(result, full_check=True)
    onnx.shape_inference.infer_shapes(result, check_type=True, strict_mode=True, data_prop=True)
    return result, [str(remark) for remark in context.remarks]


def types(proto: onnx.ModelProto) -> dict[str, int]:
    """Element type of every value and initializer, by inference from the nodes alone."""
    bare = onnx.ModelProto()
    bare.CopyFrom(proto)
    del bare.graph.value_info[:]
    graph = onnx.shape_inference.infer_shapes(bare, strict_mode=True).graph
    found = {info.name: info.type.tensor_type.elem_type for info in (*graph.input, *graph.output, *graph.value_info)}
    return found | {tensor.name: tensor.data_type for tensor in graph.initializer}


def stays(proto: onnx.ModelProto, op: str) -> bool:
    """Whether all such nodes read and give float32."""
    of = types(proto)
    return all(of[name] == FLOAT for node in proto.graph.node if node.op_type == op for name in (node.input[0], *node.output))


@pytest.mark.parametrize("make", [resnet, mobilenet, conv_chain, residual_block, lambda: perceptron((64, 128, 32))])
def test_half_the_file_and_near_the_float_model(make):
    proto = make()
    result, _ = converted(proto)
    assert [info.SerializeToString() for info in result.graph.input] == [info.SerializeToString() for info in proto.graph.input]
    assert sum(len(tensor.raw_data) for tensor in result.graph.initializer) < 0.51 * sum(
        len(tensor.raw_data) for tensor in proto.graph.initializer
    )
    assert {tensor.data_type for tensor in result.graph.initializer} <= {HALF, TensorProto.INT64}
    assert quality(proto, result) > 50


def test_inputs_and_outputs_can_change_too():
    proto = residual_block()
    result, _ = converted(proto, "convert-float16{keep_io=false}")
    assert ops(result)["Cast"] == 0
    assert {types(result)[name] for name in ("x", "y")} == {HALF}
    data = samples(proto, 4)
    given = outputs(result, {"x": data["x"].astype(np.float16)})[0]
    assert sqnr(outputs(proto, data)[0], given.astype(np.float32)) > 45


def _norm() -> onnx.ModelProto:
    """A LayerNorm that an exporter wrote out; the squares of its data are beyond 65504."""
    builder = Builder()
    x = builder.node("MatMul", ["x", builder.weight(16, 16, scale=300.0)])
    centred = builder.node("Sub", [x, builder.node("ReduceMean", [x], axes=[-1])])
    square = builder.node("Pow", [centred, builder.constant(np.float32(2))])
    variance = builder.node("Add", [builder.node("ReduceMean", [square], axes=[-1]), builder.constant(np.float32(1e-5))])
    builder.node("Div", [centred, builder.node("Sqrt", [variance])], "y")
    return builder.model({"x": ["n", 16]}, {"y": ["n", 16]})


def test_sums_and_powers_stay_in_float32_with_what_follows_them():
    proto = _norm()
    result, _ = converted(proto)
    for op in ("ReduceMean", "Pow", "Add", "Sqrt"):
        assert stays(result, op), op
    assert not stays(result, "MatMul")
    assert quality(proto, result) > 50
    risky, _ = converted(proto, "convert-float16{precise=none}")
    assert not stays(risky, "Pow")


def test_normalizations_by_option():
    builder = Builder()
    x = builder.node("LayerNormalization", [builder.node("MatMul", ["x", builder.weight(16, 16)]), builder.weight(16)])
    builder.node("Softmax", [x], "y")
    proto = builder.model({"x": ["n", 16]}, {"y": ["n", 16]})
    plain, careful = converted(proto)[0], converted(proto, "convert-float16{precise=all}")[0]
    assert not stays(plain, "LayerNormalization")
    assert stays(careful, "LayerNormalization")
    assert stays(careful, "Softmax")
    assert min(quality(proto, plain), quality(proto, careful)) > 50


def test_nodes_are_kept_by_name():
    proto = perceptron((16, 32, 10))
    result, _ = converted(proto, "convert-float16{keep=(Gemm_2)}")
    kept = next(node for node in result.graph.node if node.name == "Gemm_2")
    assert {types(result)[name] for name in (*kept.input, *kept.output)} == {FLOAT}
    with pytest.raises(DeburrError) as caught:
        converted(proto, "convert-float16{keep=(Gem_2)}")
    assert str(caught.value) == ("error[E203]: keep: nothing is called 'Gem_2', convert-float16; did you mean 'Gemm_2'?")


def test_constants_beyond_the_range_are_cut_off_or_refused():
    """A mask that exporters write: the smallest float32 where nothing may be seen."""
    builder = Builder()
    lowest = builder.constant(np.array([0, np.finfo(np.float32).min, -np.inf], np.float32), "mask")
    builder.node("Softmax", [builder.node("Add", ["x", lowest])], "y")
    proto = builder.model({"x": ["n", 3]}, {"y": ["n", 3]})
    result, remarks = converted(proto)
    assert remarks == [
        "convert-float16: tensor 'mask0': cut off at 65504: it holds numbers up to 3.4e+38 "
        "(keep=(…) leaves the nodes that read it in float32)"
    ]
    assert onnx.numpy_helper.to_array(result.graph.initializer[0]).tolist() == [0, -65504, -np.inf]
    np.testing.assert_array_equal(outputs(result, samples(proto, 4))[0], outputs(proto, samples(proto, 4))[0])
    with pytest.raises(DeburrError) as caught:
        converted(proto, "convert-float16{beyond=refuse}")
    assert str(caught.value) == (
        "error[E304]: 3.4e+38 is beyond the range of float16, tensor 'mask0': the largest float16 is 65504; name the nodes "
        "that read it in keep=(…), or let beyond=clip cut it off"
    )


def test_what_lies_below_the_range_is_counted():
    builder = Builder()
    builder.node("Mul", ["x", builder.constant(np.array([1, 1e-5, 1e-9, 0], np.float32))], "y")
    _, remarks = converted(builder.model({"x": ["n", 4]}, {"y": ["n", 4]}))
    assert remarks == ["convert-float16: constants: 2 of 4 constants lie below 6.1e-05 and lose digits; 1 of them become zero"]


def test_data_shows_which_activations_leave_the_range():
    builder = Builder()
    large = builder.node("MatMul", ["x", builder.weight(16, 16, scale=1e5)])
    small = builder.node("Mul", [large, builder.constant(np.float32(1e-5))])
    builder.node("MatMul", [small, builder.weight(16, 8)], "y")
    proto = builder.model({"x": ["n", 16]}, {"y": ["n", 8]})
    data = samples(proto, 8)
    blind, _ = converted(proto, "convert-float16")
    assert not np.isfinite(outputs(blind, data)[0]).all() or sqnr(outputs(proto, data)[0], outputs(blind, data)[0]) < 20
    result, remarks = converted(proto, data=data)
    assert [remark.split(" numbers reach")[0] for remark in remarks[:2]] == [
        "convert-float16: MatMul 'MatMul_0': left in float32: on the calibration data its",
        "convert-float16: Mul 'Mul_1': left in float32: on the calibration data its",
    ]
    assert sqnr(outputs(proto, data)[0], outputs(result, data)[0]) > 50


def test_sizes_and_scales_stay_in_float32():
    """A size that is computed in floats, and the scales of Resize."""
    builder = Builder()
    hidden = builder.conv("x", 3, 4)
    shape = builder.node("Cast", [builder.node("Shape", [hidden])], to=FLOAT)
    factors = builder.constant(np.array([1, 1, 1.3, 1.3], np.float32))
    scaled = builder.node("Cast", [builder.node("Floor", [builder.node("Mul", [shape, factors])])], to=TensorProto.INT64)
    up = builder.node("Resize", [hidden, "", "", scaled])
    builder.node("Resize", [up, "", builder.constant(np.array([1, 1, 2, 2], np.float32))], "y")
    proto = builder.model({"x": ["n", 3, 10, 10]}, {"y": ["n", 4, "h", "w"]})
    result, _ = converted(proto)
    assert not stays(result, "Resize")
    assert stays(result, "Floor")
    assert stays(result, "Mul")
    assert quality(proto, result) > 50


def test_quantizers_and_unknown_operators_keep_float32():
    builder = Builder()
    x = builder.node("MatMul", ["x", builder.weight(16, 16)])
    scale, zero = builder.constant(np.float32(0.02)), builder.constant(np.uint8(128))
    q = builder.node("QuantizeLinear", [x, scale, zero])
    x = builder.node("DequantizeLinear", [q, scale, zero])
    x = builder.node("Gelu", [builder.node("MatMul", [x, builder.weight(16, 16)])], domain="com.microsoft")
    builder.node("Relu", [x], "y")
    graph = helper.make_graph(
        builder.nodes, "tiny", [helper.make_tensor_value_info("x", FLOAT, ["n", 16])],
        [helper.make_tensor_value_info("y", FLOAT, ["n", 16])], builder.initializers,
    )  # fmt: skip
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    proto = helper.make_model(graph, ir_version=8, opset_imports=imports)
    context = Context(read(proto))
    run(parse("convert-float16"), context)
    result = to_proto(context.model)
    gelu = next(node for node in result.graph.node if node.op_type == "Gelu")
    before = next(node for node in result.graph.node if gelu.input[0] in node.output)
    assert before.op_type == "Cast"
    assert before.attribute[0].i == FLOAT
    assert quality(proto, result) > 25
    assert [remark.reason for remark in context.remarks] == [
        "left in float32: it stands between reals and integers: scales keep their precision",
        "left in float32: it stands between reals and integers: scales keep their precision",
        "left in float32: com.microsoft 1 has no operator Gelu that we know",
        "left in float32: an input or output is a sequence, or its type is not known",
    ]


def test_subgraphs_are_converted_and_their_borders_keep_their_types():
    builder = Builder()
    hidden, weight = builder.node("MatMul", ["x", builder.weight(16, 16)]), builder.weight(16, 16)

    def branch(op: str) -> onnx.GraphProto:
        nodes = [helper.make_node("MatMul", [hidden, weight], [f"{op}_in"]), helper.make_node(op, [f"{op}_in"], [f"{op}_out"])]
        return helper.make_graph(nodes, op, [], [helper.make_tensor_value_info(f"{op}_out", FLOAT, ["n", 16])])

    total = builder.node("ReduceSum", [hidden], keepdims=0)
    condition = builder.node("Greater", [total, builder.constant(np.float32(0))])
    builder.node("If", [condition], "chosen", then_branch=branch("Relu"), else_branch=branch("Tanh"))
    builder.node("MatMul", ["chosen", builder.weight(16, 8)], "y")
    proto = builder.model({"x": ["n", 16]}, {"y": ["n", 8]})
    result, _ = converted(proto)
    assert {tensor.data_type for tensor in result.graph.initializer if len(tensor.dims) == 2} == {HALF}
    holder = next(node for node in result.graph.node if node.op_type == "If")
    assert all(attribute.g.node[0].op_type == "MatMul" for attribute in holder.attribute)
    assert quality(proto, result) > 50


def test_a_constant_that_both_read_is_stored_in_both():
    builder = Builder()
    shared = builder.weight(16)
    x = builder.node("Add", [builder.node("MatMul", ["x", builder.weight(16, 16)]), shared])
    total = builder.node("Exp", [builder.node("ReduceSum", [x], keepdims=1)])
    builder.node("Mul", [total, shared], "y")
    proto = builder.model({"x": ["n", 16]}, {"y": ["n", 16]})
    result, _ = converted(proto)
    assert sorted(tensor.data_type for tensor in result.graph.initializer if list(tensor.dims) == [16]) == [FLOAT, HALF]


def test_weights_of_8_bits_and_activations_of_16():
    proto = perceptron((64, 128, 32))
    result, _ = converted(proto, "quantize-weights,convert-float16")
    assert ops(result)["DequantizeLinear"] == 2
    assert {tensor.data_type for tensor in result.graph.initializer if len(tensor.dims) == 2} == {TensorProto.INT8}
    assert quality(proto, result) > 35


@pytest.mark.parametrize("precise", ["none", "sums"])
def test_sums_of_integers_and_their_scales_stay_in_float32(precise):
    """Accumulators reach millions, and scales of weights times scales of data lie below the smallest normal float16."""
    proto = perceptron((512, 128, 32))
    result, _ = converted(proto, f"quantize-dynamically,convert-float16{{precise={precise},keep_io=false}}")
    of = types(result)
    for node in result.graph.node:
        if node.op_type in ("Mul", "Add"):
            assert {of[name] for name in (*node.input, *node.output)} == {FLOAT}
    data = samples(proto, 40)
    given = outputs(result, {"x": data["x"].astype(np.float16)})[0]
    assert sqnr(outputs(proto, data)[0], given.astype(np.float32)) > 30
