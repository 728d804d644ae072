"""Models whose weights are stored in other formats, compiled: the numbers of ONNX Runtime, or a coded error."""

import numpy as np
import onnx
import pytest
from models import Builder, perceptron, residual_block, samples
from onnx import TensorProto, helper
from program import execute, lowered

from deburr.ir.evaluate import Evaluator
from deburr.ir.model import Model
from deburr.ir.onnx_reader import read
from deburr.ir.onnx_writer import to_proto
from deburr.ir.samples import Samples
from deburr.passes import manager, pipeline
from deburr.passes.core import Context

TARGET = "x86-64-v3"


def optimized(proto: onnx.ModelProto, text: str) -> Model:
    data = samples(proto, 8)
    context = Context(read(proto), data=Samples(data))
    manager.run(pipeline.parse(text), context)
    return context.model


def embedding() -> onnx.ModelProto:
    """Rows of a table, multiplied by a matrix."""
    builder = Builder()
    x = builder.node("Gather", [builder.weight(100, 32, scale=1.0), "tokens"])
    builder.node("MatMul", [x, builder.weight(32, 16)], "y")
    graph = helper.make_graph(
        builder.nodes, "tiny", [helper.make_tensor_value_info("tokens", TensorProto.INT64, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3, 16])], builder.initializers,
    )  # fmt: skip
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def both(model: Model, inputs: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The first output of ONNX Runtime, and of the compiled program."""
    program = lowered(to_proto(model), TARGET)[1]
    name = model.graph.outputs[0].name
    return Evaluator(model).run(inputs)[name], execute(program, inputs, TARGET)[name]


@pytest.mark.parametrize("bits", [8, 4])
def test_integer_weights(bits):
    proto = residual_block(16)
    wanted, given = both(optimized(proto, f"clean,quantize-weights{{bits={bits}}}"), samples(proto, 1))
    np.testing.assert_allclose(given, wanted, rtol=1e-4, atol=1e-5)


def test_integer_tables():
    wanted, given = both(optimized(embedding(), "quantize-weights"), {"tokens": np.array([[4, 0, 99]])})
    np.testing.assert_allclose(given, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("zeros", [False, True])
def test_dynamic_scales(zeros):
    proto = perceptron((64, 48, 10))
    data = {"x": np.zeros((1, 64), np.float32)} if zeros else samples(proto, 1)
    wanted, given = both(optimized(proto, "quantize-dynamically"), data)
    np.testing.assert_allclose(given, wanted, atol=0.02 * np.abs(wanted).max())
