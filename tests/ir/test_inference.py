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
