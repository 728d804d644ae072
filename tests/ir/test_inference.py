"""Types of values: what inference adds, and what it must leave alone."""

from __future__ import annotations

import numpy as np
from models import Builder, branch_on_sum, conv_chain, residual_block
from onnx import helper

from deburr.ir import onnx_tensors
from deburr.ir.inference import infer
from deburr.ir.onnx_reader import read
from deburr.ir.types import DType, TensorType


def test_symbols_survive_and_made_up_ones_do_not():
    model = read(conv_chain())
    shapes = [value.shape for node in model.graph.nodes for value in node.outputs]
    assert shapes[0] == ("batch", 8, 8, 8)
    assert shapes[-1] == ("batch", 10)
    builder = Builder()
    builder.node("Cast", [builder.node("NonZero", ["x"])], "y", to=1)
    assert read(builder.model({"x": [2, 3]}, {"y": [2, None]})).graph.value("y").shape == (2, None)


def test_subgraphs_are_typed():
    model = read(branch_on_sum())
    inner = [value for graph in model.graph.walk() if graph is not model.graph for value in graph.outputs]
    assert [value.type for value in inner] == [TensorType(DType.FLOAT, (4,))] * 2


def test_shapes_computed_by_the_graph():
    builder = Builder()
    shape = builder.node("Concat", [builder.constant(np.array([6])), builder.constant(np.array([2]))], axis=0)
    builder.node("Reshape", ["x", shape], "y")
    model = read(builder.model({"x": [3, 4]}, {"y": [None, None]}))
    assert model.graph.value("y").shape == (6, 2)


def _sized(build, expected):
    """What inference says of "y", which `build` makes of "x" [batch, 8, 6, 6]."""
    builder = Builder()
    build(builder)
    model = read(builder.model({"x": ["batch", 8, 6, 6]}, {"y": [None] * len(expected)}))
    assert model.graph.value("y").shape == expected


def _ints(builder, *numbers):
    return builder.constant(np.array(numbers, np.int64))


def test_a_size_that_is_inferred_from_a_symbol():
    def build(b):
        lead = b.node("Slice", [b.node("Shape", ["x"]), _ints(b, 0), _ints(b, 2)])
        b.node("Reshape", ["x", b.node("Concat", [lead, _ints(b, -1)], axis=0)], "y")

    _sized(build, ("batch", 8, 36))


def test_products_with_a_symbol_come_apart_again():
    def build(b):
        flat = b.node("Relu", [b.node("Reshape", ["x", _ints(b, -1, 8, 6)])])
        b.node("Reshape", [flat, b.node("Concat", [b.node("Slice", [b.node("Shape", ["x"]), _ints(b, 0), _ints(b, 1)]),
                                                   _ints(b, -1)], axis=0)], "y")  # fmt: skip

    _sized(build, ("batch", 288))
    _sized(lambda b: b.node("Flatten", ["x"], "y", axis=2), ("8*batch", 36))


def test_division_in_floats_is_no_division_of_sizes():
    """7 / 2 * 2 is 7 in floats, and 6 in integers."""

    def build(b):
        half = b.node("Div", [b.node("Cast", [_ints(b, 7)], to=1), b.constant(np.float32([2]))])
        size = b.node("Cast", [b.node("Mul", [half, b.constant(np.float32([2]))])], to=7)
        b.node("Expand", [b.node("Flatten", ["x"], axis=0), b.node("Concat", [size, _ints(b, 1)], axis=0)], "y")

    _sized(build, (None, "288*batch"))


def test_unknown_operator_stops_nothing():
    builder = Builder()
    hidden = builder.node("Magic", ["x"], domain="acme")
    builder.node("Relu", [hidden], "y")
    builder.node("Relu", ["x"], "z")
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("acme", 1)]
    model = read(builder.model({"x": [3, 4]}, {"y": [3, 4], "z": [None, None]}, opset_imports=imports))
    assert model.graph.value(hidden).type is None
    assert model.graph.value("z").shape == (3, 4)


def test_declared_stays_unless_overwritten():
    model = read(residual_block())
    model.graph.set_type(model.graph.inputs[0], TensorType(DType.FLOAT, ("batch", 3, 16, 16)))
    convolution = next(node for node in model.graph.nodes if node.op == "Conv")
    infer(model)
    assert convolution.output().shape == ("batch", 8, 8, 8)
    infer(model, overwrite=True)
    assert convolution.output().shape == ("batch", 8, 16, 16)


def test_nothing_changes_where_nothing_is_new():
    model = read(residual_block())
    revision = model.revision
    infer(model)
    assert model.revision == revision


def test_big_weights_are_neither_loaded_nor_copied(monkeypatch):
    model = read(conv_chain((3, 64, 64)))
    big = [value for value in model.graph.constants if value.constant.size > 1024]
    copied = []
    original = onnx_tensors.tensor_proto
    monkeypatch.setattr(onnx_tensors, "tensor_proto", lambda constant, name: copied.append(name) or original(constant, name))
    infer(model, overwrite=True)
    assert big
    assert not any(value.constant.is_loaded or value.name in copied for value in big)
    assert copied
