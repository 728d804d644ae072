"""One model for everything that a file can say beyond operators and weights: all of it survives the round trip."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from models import branch_on_sum, custom_function
from onnx import AttributeProto, TensorProto, helper, numpy_helper, parser
from round_trip import assert_same_statement

from deburr.ir.onnx_reader import read
from deburr.ir.onnx_writer import to_proto

FLOAT4 = helper.make_tensor_type_proto(TensorProto.FLOAT, [4])


def survives(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model after a round trip, which a second one does not change."""
    after = to_proto(read(model))
    assert_same_statement(model, after)
    again = to_proto(read(after))
    assert again.SerializeToString(deterministic=True) == after.SerializeToString(deterministic=True)
    return after


def model_of(nodes, initializers=(), *, imports=(("", 17),), ir_version=10, inputs=("x",), **fields) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes), "tiny", [helper.make_value_info(name, FLOAT4) for name in inputs],
        [helper.make_value_info("y", FLOAT4)], list(initializers),
    )  # fmt: skip
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid(*entry) for entry in imports], ir_version=ir_version, **fields
    )


def four(name: str = "w", dtype=np.float32) -> TensorProto:
    return numpy_helper.from_array(np.arange(4).astype(dtype), name)


def test_metadata_and_doc_strings():
    relu = helper.make_node("LeakyRelu", ["x"], ["h"], name="relu", alpha=0.5)
    add = helper.make_node("Add", ["h", "w"], ["y"], name="add")
    model = model_of([relu, add], [four()], producer_name="maker", producer_version="1.2", domain="org.example")
    model.model_version, model.doc_string, model.graph.doc_string = 7, "a model", "a graph"
    model.graph.node[0].doc_string, model.graph.node[0].attribute[0].doc_string = "a node", "an attribute"
    model.graph.initializer[0].doc_string, model.graph.input[0].doc_string = "a weight", "an input"
    hidden = helper.make_tensor_value_info("h", TensorProto.FLOAT, [4], "a value")
    model.graph.value_info.append(hidden)
    places = (model, model.graph, model.graph.node[0], model.graph.input[0], model.graph.value_info[0], model.graph.output[0])
    for number, holder in enumerate((*places, model.graph.initializer[0])):
        holder.metadata_props.add(key="place", value=str(number))
    after = survives(model)
    assert after.graph.node[0].attribute[0].doc_string == "an attribute"
    assert [entry.value for entry in after.graph.initializer[0].metadata_props] == ["6"]


def test_denoted_dimensions():
    model = model_of([helper.make_node("Relu", ["x"], ["y"])])
    model.graph.input[0].type.denotation = "TENSOR"
    model.graph.input[0].type.tensor_type.shape.dim[0].denotation = "DATA_FEATURE"
    assert survives(model).graph.input[0].type == model.graph.input[0].type


def test_sparse_initializer():
    values = numpy_helper.from_array(np.array([2.0, 3.0], np.float32), "s")
    indices = numpy_helper.from_array(np.array([0, 3], np.int64))
    model = model_of([helper.make_node("Add", ["x", "s"], ["y"])])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4]))
    survives(model)
    assert read(model).graph.value("s").array.tolist() == [2, 0, 0, 3]


def test_sparse_and_type_attributes():
    values, indices = four("v"), numpy_helper.from_array(np.arange(4, dtype=np.int64))
    nodes = [
        helper.make_node("Constant", [], ["s"], sparse_value=helper.make_sparse_tensor(values, indices, [4])),
        helper.make_node("Odd", ["x", "s"], ["y"], domain="acme", wanted=FLOAT4, several=[FLOAT4, FLOAT4]),
    ]
    survives(model_of(nodes, imports=(("", 17), ("acme", 1))))


def test_subgraphs():
    survives(branch_on_sum())


def test_lists_of_tensors_and_graphs_on_unknown_operators():
    bodies = [
        helper.make_graph([helper.make_node(op, ["x"], [op])], f"body_{op}", [], [helper.make_value_info(op, FLOAT4)])
        for op in ("Relu", "Neg")
    ]
    node = helper.make_node("Odd", ["x"], ["y"], domain="acme", bodies=bodies, tensors=[four("a"), four("b", np.int64)])
    node.attribute.append(AttributeProto(name="nothing", type=AttributeProto.INTS))
    after = survives(model_of([node], imports=(("", 17), ("acme", 3))))
    assert {entry.name for entry in after.graph.node[0].attribute} == {"bodies", "tensors", "nothing"}


def test_functions_with_attribute_references_and_defaults():
    survives(custom_function())


def test_functions_with_constants_and_overloads():
    functions = []
    for overload, op in (("left", "Add"), ("right", "Mul")):
        constant = helper.make_node("Constant", [], ["c"], value=four("c"))
        body = [constant, helper.make_node(op, ["a", "c"], ["b"])]
        function = helper.make_function("local", "Twin", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
        function.overload, function.doc_string = overload, f"the {overload} one"
        functions.append(function)
    nodes = [
        helper.make_node("Twin", [x], [y], domain="local", overload=o) for x, y, o in (("x", "h", "left"), ("h", "y", "right"))
    ]
    after = survives(model_of(nodes, imports=(("", 17), ("local", 1)), functions=functions))
    assert [function.overload for function in after.functions] == ["left", "right"]


def test_unknown_domain():
    node = helper.make_node("Magic", ["x", "", "w", ""], ["y", "", "z"], "wand", domain="acme.tools", power=3, names=["a", "b"])
    after = survives(model_of([node], [four()], imports=(("", 17), ("acme.tools", 5))))
    assert list(after.graph.node[0].output) == ["y", "", "z"]


def test_strings_that_are_not_utf8():
    words = TensorProto(name="s", data_type=TensorProto.STRING, dims=[2], string_data=[b"\xff\xfe", "ü".encode()])
    node = helper.make_node("Odd", ["x", "s"], ["y"], domain="acme", one=b"\xff\x00", two=[b"\xfe", b"fine"])
    after = survives(model_of([node], [words], imports=(("", 17), ("acme", 1))))
    assert after.graph.initializer[0].string_data[0] == b"\xff\xfe"
    assert after.graph.node[0].attribute[0].s == b"\xff\x00"


def test_quantization_annotations():
    scale, zero = numpy_helper.from_array(np.float32(0.1), "scale"), numpy_helper.from_array(np.uint8(3), "zero")
    model = model_of([helper.make_node("Relu", ["x"], ["y"])], [scale, zero])
    annotation = model.graph.quantization_annotation.add(tensor_name="x")
    for key, name in (("SCALE_TENSOR", "scale"), ("ZERO_POINT_TENSOR", "zero")):
        annotation.quant_parameter_tensor_names.add(key=key, value=name)
    assert len(survives(model).graph.quantization_annotation) == 1


def test_inputs_with_defaults():
    model = model_of([helper.make_node("Add", ["x", "w"], ["y"])], [four()], inputs=("x", "w"))
    after = survives(model)
    assert [info.name for info in after.graph.input] == ["x", "w"]
    assert not read(model).graph.value("w").is_constant


def test_initializers_listed_as_inputs_before_ir_version_4():
    model = model_of(
        [helper.make_node("Add", ["x", "w"], ["y"])], [four()], inputs=("w", "x"), ir_version=3, imports=(("", 8),)
    )
    survives(model)
    assert read(model).graph.value("w").is_constant


@pytest.mark.parametrize(
    "dtype", ["FLOAT16", "BFLOAT16", "FLOAT8E4M3FN", "FLOAT8E5M2FNUZ", "INT4", "UINT4", "BOOL", "COMPLEX64"]
)
@pytest.mark.parametrize("raw", [True, False])
def test_weights_of_every_width(dtype, raw):
    number = getattr(TensorProto, dtype)
    array = np.array([0, 1, 1, 0, 1]).astype(helper.tensor_dtype_to_np_dtype(number))
    weight = numpy_helper.from_array(array, "w") if raw else helper.make_tensor("w", number, [5], array)
    node = helper.make_node("Odd", ["x", "w"], ["y"], domain="acme")
    model = model_of([node], [weight], imports=(("", 21), ("acme", 1)))
    survives(model)
    assert read(model).graph.value("w").array.tobytes() == array.tobytes()


def test_external_data(tmp_path):
    model = model_of([parser.parse_node("y = Add(x, w)")], [four()])
    model.graph.initializer[0].doc_string = "a weight"
    stored = onnx.ModelProto.FromString(model.SerializeToString())
    onnx.save(stored, tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0, location="elsewhere.bin")
    ir = read(tmp_path / "m.onnx")
    assert not ir.graph.value("w").constant.is_loaded
    assert_same_statement(model, to_proto(ir))
