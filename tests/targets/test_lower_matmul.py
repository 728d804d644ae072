"""Transformers and other matrix products: what they become, with ONNX Runtime's numbers."""

import numpy as np
import pytest
from models import Builder, samples, transformer_layer
from program import execute, lowered, ops, quantized
from test_lower_integer import TARGETS, worst_step

from deburr.ir.evaluate import Evaluator
from deburr.ir.onnx_reader import read
from deburr.ir.onnx_writer import to_proto
from deburr.ir.samples import Samples
from deburr.passes import manager, pipeline
from deburr.passes.core import Context


def close(proto, target="x86-64-v4-vnni", *, batch=1, error=1e-4):
    """Lower, run, compare with ONNX Runtime; the lowered model."""
    original, model, _ = lowered(proto, target, batch=batch)
    data = samples(proto, batch)
    expected = Evaluator(original).run(data)
    for name, found in execute(model, data, target).items():
        assert np.abs(found - expected[name]).max() <= error * np.abs(expected[name]).max()
    return model


def by_deburr(proto):
    """In integers between float operators, as the dialect of ONNX Runtime has it."""
    context = Context(read(proto), data=Samples(samples(proto, 20)))
    manager.run(pipeline.parse("clean,calibrate,scale-weights,insert-qdq,remove-dead-code"), context)
    return to_proto(context.model)


def test_a_transformer_in_float():
    model = close(transformer_layer(), batch=2)
    assert ops(model).count("MatMul") == 8
    assert ops(model).count("Rows") == 3
    assert not {"Transpose", "Softmax", "LayerNormalization"} & set(ops(model))  # nor an Add of the residual or a bias:
    assert [node.op for node in model.graph.nodes].count("Add") == 1  # that of GELU


@pytest.mark.parametrize("signed", [False, True])
def test_every_integer_of_a_quantized_transformer_is_within_one_of_onnx_runtime(signed):
    worst, count = worst_step(quantized(transformer_layer(), signed=signed))
    assert worst <= 1
    assert count >= 15


def test_every_target_gives_the_same_integers():
    proto = quantized(products())
    results = [execute(lowered(proto, target)[1], samples(proto, 1), target)["y"] for target in TARGETS]
    assert np.ptp(results[0]) > 0
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


def test_a_transformer_with_float_between_integer_layers():
    model = close(by_deburr(transformer_layer()), error=0.05)
    products_ = [node for node in model.graph.nodes if node.op == "MatMul"]
    assert [str(node.input(0).dtype) for node in products_].count("uint8") == 6
    assert not [node for node in model.graph.nodes if node.op == "Transpose"]


def products():
    """Stacks of matrices, repeated and not, odd sizes, a bias, a sum with the input."""
    builder = Builder()
    a = builder.node("Add", [builder.node("MatMul", ["x", builder.weight(19, 21, scale=0.3)]), builder.weight(21, scale=0.5)])
    b = builder.node("Relu", [builder.node("MatMul", ["x", builder.weight(19, 21, scale=0.3)])])
    scores = builder.node("MatMul", [a, builder.node("Transpose", [b], perm=[0, 2, 1])])
    mixed = builder.node("MatMul", [scores, b])
    back = builder.node("MatMul", [mixed, builder.weight(21, 19, scale=0.02)])
    builder.node("Add", [back, "x"], "y")
    return builder.model({"x": ["batch", 17, 19]}, {"y": ["batch", 17, 19]})


@pytest.mark.parametrize("target", TARGETS)
def test_products_of_odd_sizes(target):
    close(products(), target, batch=3)


def test_integer_products_of_odd_sizes():
    worst, count = worst_step(quantized(products()))
    assert worst <= 1
    assert count >= 6


def broadcast(a, b, attributes=None, op="MatMul"):
    builder = Builder()
    other = builder.weight(*b, scale=0.5) if attributes is not None else "z"
    builder.node(op, ["x", other], "y", **(attributes or {}))
    result = np.matmul(np.zeros(a), np.zeros(b)).shape if op == "MatMul" else ([a[1], a[0]][not attributes.get("transA")], b[0])
    inputs = {"x": list(a)} if attributes is not None else {"x": list(a), "z": list(b)}
    return builder.model(inputs, {"y": list(result)})


@pytest.mark.parametrize(
    ("a", "b"),
    [((2, 1, 5, 7), (3, 7, 4)), ((5, 7), (2, 3, 7, 4)), ((2, 3, 5, 7), (7, 33)), ((7,), (3, 7, 4)), ((1, 1, 3), (1, 3, 1))],
)
def test_repeated_operands(a, b):
    model = close(broadcast(a, b))
    assert ops(model) == ["MatMul"]


def test_a_constant_stack_of_matrices():
    assert ops(close(broadcast((2, 3, 5, 7), (3, 7, 9), {}))) == ["MatMul"]


def test_a_wide_batch_of_a_perceptron_is_a_product():
    """A Gemm of many rows stays as it lies in memory; one of few is a convolution of one pixel."""
    assert ops(close(broadcast((40, 24), (10, 24), {"transB": 1, "alpha": 0.5}, "Gemm"))) == ["MatMul"]
    assert "Conv2d" in ops(close(broadcast((4, 24), (10, 24), {"transB": 1}, "Gemm")))


def test_a_product_by_a_vector_is_left_to_tvm_and_says_so():
    _, _, remarks = lowered(broadcast((5, 7), (7,)))
    assert any("its result is a vector: compiled by TVM's own converter" in remark for remark in remarks)
