"""Concat and Split of images between convolutions stay in blocks, in float and in integers, with ONNX Runtime's numbers."""

import pytest
from models import Builder
from onnx import helper
from program import lowered, ops, quantized
from test_lower_integer import worst_step
from test_lower_matmul import close


def split_and_joined(parts):
    """A convolution whose channels are split; the parts are convolved or not, and joined."""
    builder = Builder()
    x = builder.node("Relu", [builder.conv("x", 3, sum(parts))])
    names = [f"part{index}" for index in range(len(parts))]
    builder.nodes.append(helper.make_node("Split", [x, builder.constant(list(parts))], names, "split", axis=1))
    names[0] = builder.conv(names[0], parts[0], 16)
    joined = builder.node("Concat", names, axis=1)
    builder.conv(joined, 16 + sum(parts[1:]), 5, 1, "y")
    return builder.model({"x": [1, 3, 7, 6]}, {"y": [1, 5, 7, 6]})


PARTS = pytest.mark.parametrize("parts", [(16, 32), (16, 16, 5), (3, 10)])


@PARTS
def test_in_float(parts):
    found = ops(close(split_and_joined(parts)))
    assert found.count("Part") == len(parts)
    assert found.count("ChangeLayout") == 2  # the model's input and output


@PARTS
def test_integers_are_within_one_of_onnx_runtime(parts):
    proto = quantized(split_and_joined(parts))
    _, model, _ = lowered(proto)
    assert "ChangeLayout" not in ops(model)
    assert "Split" not in ops(model)
    worst, count = worst_step(proto)
    assert worst <= 1
    assert count >= 3


def test_across_rows_or_as_an_output_it_is_left_to_tvm():
    builder = Builder()
    x = builder.conv("x", 3, 8)
    builder.nodes.append(helper.make_node("Split", [x, builder.constant([3, 4])], ["a", "y"], "split", axis=2))
    proto = builder.model({"x": [1, 3, 7, 6]}, {"y": [1, 8, 4, 6]})
    assert "Split" in ops(close(proto))


def test_nodes_that_compute_the_same_are_one():
    """Two Concats of the same tensors, and the changes of scale before them: a program has each once, and its manifest too."""
    builder = Builder()
    x, z = (builder.node("Relu", [builder.conv("x", 3, 16)]) for _ in range(2))
    both = [builder.node("Concat", operands, axis=1) for operands in ([x, z], [x, z])]
    y = builder.node("Add", [builder.conv(value, 32, 16) for value in both])
    builder.conv(y, 16, 5, 1, "y")
    proto = quantized(builder.model({"x": [1, 3, 7, 6]}, {"y": [1, 5, 7, 6]}))
    _, model, _ = lowered(proto)
    assert ops(model).count("Concat") == 1
    assert worst_step(proto)[0] <= 1
