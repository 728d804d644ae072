"""Softmax, normalizations and means of ONNX models: which become kernels along rows, with ONNX Runtime's numbers."""

import numpy as np
import pytest
from models import Builder
from program import ops
from test_lower_matmul import close


def layer_spelt_out():
    """LayerNormalization as exporters wrote it before opset 17."""
    builder = Builder()
    mean = builder.node("ReduceMean", ["x"], axes=[-1])
    centred = builder.node("Sub", ["x", mean])
    variance = builder.node("ReduceMean", [builder.node("Pow", [centred, builder.constant(np.float32(2))])], axes=[-1])
    root = builder.node("Sqrt", [builder.node("Add", [variance, builder.constant(np.float32(1e-5))])])
    scaled = builder.node("Mul", [builder.node("Div", [centred, root]), builder.weight(33, scale=1.0)])
    builder.node("Add", [scaled, builder.weight(33, scale=0.1)], "y")
    return builder.model({"x": [2, 5, 33]}, {"y": [2, 5, 33]})


def one(op, shape, *, result=None, weights=(), opset=21, **attributes):
    builder = Builder()
    builder.node(op, ["x", *(builder.weight(size, scale=1.0) for size in weights)], "y", **attributes)
    return builder.model({"x": list(shape)}, {"y": list(result or shape)}, opset=opset, ir_version=10)


MODELS = {
    "softmax": one("Softmax", (2, 3, 37)),
    "softmax before axes of 1": one("Softmax", (2, 37, 1, 1), axis=1),
    "layer": one("LayerNormalization", (2, 3, 40), weights=(40, 40)),
    "layer without bias": one("LayerNormalization", (2, 3, 40), weights=(40,)),
    "instance": one("InstanceNormalization", (2, 6, 5, 7), weights=(6, 6)),
    "group": one("GroupNormalization", (2, 6, 5, 7), weights=(6, 6), num_groups=3),
    "mean": one("ReduceMean", (2, 3, 40), result=(2, 3, 1), opset=17, axes=[-1]),
    "sum of two axes": one("ReduceSum", (2, 3, 4, 5), result=(2, 3), opset=12, axes=[2, 3], keepdims=0),
    "maximum of all": one("ReduceMax", (2, 33), result=(1, 1), opset=17),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_it_is_one_kernel(name):
    assert ops(close(MODELS[name])) == ["Rows"]


def test_a_layer_normalization_that_is_spelt_out():
    assert ops(close(layer_spelt_out())).count("Rows") == 2


@pytest.mark.parametrize(
    "proto",
    [one("Softmax", (2, 3, 4), axis=1), one("ReduceSum", (2, 3, 4), result=(2, 1, 4), opset=12, axes=[1])],
    ids=["softmax", "sum"],
)
def test_across_rows_it_is_left_to_tvm(proto):
    assert "Rows" not in ops(close(proto))
