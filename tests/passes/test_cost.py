"""Multiply-accumulates and parameters, against figures worked out by hand."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from models import Builder, conv_chain

from deburr.ir.onnx_reader import read
from deburr.passes.analysis.cost import cost
from deburr.passes.core import Context


def _cost(proto):
    model = read(proto)
    context = Context(model)
    found = context.analysis(cost, model.graph)
    return found, {node.op: count for node, count in found.macs.items()}, context


@pytest.mark.parametrize(
    ("op", "weight", "attributes", "macs"),
    [
        ("Conv", (4, 3, 3, 3), {"pads": [1] * 4}, 4 * 3 * 9 * 64),
        ("Conv", (4, 3, 3, 3), {"strides": [2, 2]}, 4 * 3 * 9 * 9),
        ("Conv", (6, 1, 3, 3), {"group": 3, "pads": [1] * 4}, 6 * 9 * 64),
        ("ConvTranspose", (3, 4, 2, 2), {"strides": [2, 2]}, 3 * 4 * 4 * 64),
        ("MatMul", (8, 5), {}, 3 * 8 * 8 * 5),
    ],
)
def test_macs_of_one_sample(op, weight, attributes, macs):
    builder = Builder()
    builder.node(op, ["x", builder.weight(*weight)], "y", **attributes)
    found, by_op, _ = _cost(builder.model({"x": ["batch", 3, 8, 8]}, {"y": [None] * 4}))
    assert by_op == {op: macs}
    assert found.total_macs == macs


def test_a_fixed_batch_counts_once_for_each_of_its_samples():
    assert _cost(conv_chain(batch=4))[0].total_macs == 4 * _cost(conv_chain(batch="batch"))[0].total_macs


def test_gemm_and_parameters():
    builder = Builder()
    builder.gemm("x", 16, 10, "y")
    found, by_op, _ = _cost(builder.model({"x": ["batch", 16]}, {"y": ["batch", 10]}))
    assert by_op == {"Gemm": 160}
    assert (found.parameters, found.parameter_bytes) == (170, 680)


def test_a_shared_constant_counts_once():
    builder = Builder()
    weight = builder.weight(3, 3, 1, 1)
    builder.node("Conv", [builder.node("Conv", ["x", weight]), weight], "y")
    found, _, _ = _cost(builder.model({"x": ["batch", 3, 8, 8]}, {"y": ["batch", 3, 8, 8]}))
    assert found.parameters == 9
    assert found.total_macs == 2 * 9 * 64


def test_an_einsum_counts_every_combination_of_indices():
    builder = Builder()
    builder.node("Einsum", ["x", builder.weight(4, 5)], "y", equation="...i,ij")
    _, by_op, _ = _cost(builder.model({"x": ["batch", 7, 4]}, {"y": ["batch", 7, 5]}))
    assert by_op == {"Einsum": 7 * 4 * 5}


def test_a_recurrent_network_counts_both_products_of_both_directions():
    builder = Builder()
    weights = [builder.weight(2, 4 * 6, 3), builder.weight(2, 4 * 6, 6)]
    builder.node("LSTM", ["x", *weights], "y", hidden_size=6, direction="bidirectional")
    _, by_op, _ = _cost(builder.model({"x": [5, "batch", 3]}, {"y": [5, 2, "batch", 6]}))
    assert by_op == {"LSTM": 5 * 2 * 4 * 6 * (3 + 6)}


def test_what_is_not_counted_gets_a_remark():
    from onnx import helper

    builder = Builder()
    builder.nodes.append(helper.make_node("Mystery", ["x"], ["m"], domain="com.example"))
    builder.node("Einsum", ["m", builder.weight(4, 5)], "y", equation="bi,ij->bj")
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)]
    graph = {"x": ["batch", 4]}, {"y": ["batch", 5]}
    found, by_op, context = _cost(builder.model(*graph, opset_imports=opsets))
    assert by_op == {}
    assert [remark.reason for remark in context.remarks] == ["its multiply-accumulates are not counted"]
    assert found.parameters == 20


def test_a_tensor_inside_a_node_constant_counts():
    """Exporters of Paddle write every weight so."""
    builder = Builder()
    builder.node("Constant", [], "w", value=onnx.numpy_helper.from_array(np.ones((8, 5), np.float32)))
    builder.node("MatMul", ["x", "w"], "y")
    found, by_op, _ = _cost(builder.model({"x": ["batch", 8]}, {"y": [None] * 2}))
    assert (found.parameters, found.parameter_bytes, by_op) == (40, 160, {"MatMul": 40})
