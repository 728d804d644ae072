"""Models whose weights are stored in other formats, compiled: the numbers of ONNX Runtime, or a coded error."""

import numpy as np
import onnx
import pytest
from models import Builder, perceptron, residual_block, samples
from onnx import TensorProto, helper
from program import execute, lowered

from deburr.ir.errors import DeburrError
from deburr.ir.evaluate import Evaluator
from deburr.ir.model import Model
from deburr.ir.onnx_reader import read
from deburr.ir.onnx_writer import to_proto
from deburr.ir.samples import Samples
from deburr.ir.types import DType
from deburr.passes import manager, pipeline
from deburr.passes.core import Context
from deburr.targets import compile as compiling
from deburr.targets.emit import emit
from deburr.targets.target import find

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


def test_dynamic_scales_of_stacked_data():
    builder = Builder()
    x = builder.node("MatMul", ["x", builder.weight(64, 32, scale=0.1)])
    builder.node("MatMul", [builder.node("Softmax", [x]), builder.weight(32, 16)], "y")
    proto = builder.model({"x": ["n", 5, 64]}, {"y": ["n", 5, 16]})
    wanted, given = both(optimized(proto, "quantize-dynamically"), samples(proto, 1))
    np.testing.assert_allclose(given, wanted, atol=0.02 * np.abs(wanted).max())


def test_what_nothing_compiles_has_a_code():
    """TVM has no converter for LSTM, whatever its weights are."""
    builder = Builder()
    builder.node("LSTM", ["x", builder.weight(1, 64, 32), builder.weight(1, 64, 16)], "y", hidden_size=16)
    proto = builder.model({"x": [5, 2, 32]}, {"y": [5, 1, 2, 16]})
    for text in ("quantize-weights", "convert-float16"):
        with pytest.raises(DeburrError, match=r"^error\[E402\]: the operator LSTM cannot be compiled"):
            emit(lowered(to_proto(optimized(proto, text)), TARGET)[1], find(TARGET))


@pytest.mark.parametrize("keep_io", ["true", "false"])
def test_float16_computes_in_float32(keep_io):
    """Nearer to the float32 model than ONNX Runtime's float16, and by our own templates."""
    proto = residual_block(16)
    data = samples(proto, 1)
    exact = Evaluator(read(proto)).run(data)["y"]
    model = optimized(proto, f"clean,convert-float16{{keep_io={keep_io}}}")
    inputs = {"x": data["x"].astype(model.graph.value("x").dtype.numpy)}
    wanted, given = both(model, inputs)
    assert given.dtype == wanted.dtype
    np.testing.assert_allclose(given, wanted, atol=5e-3 * np.abs(wanted).max())
    np.testing.assert_allclose(given, exact, atol=5e-3 * np.abs(exact).max())
    program = lowered(to_proto(model), TARGET)[1]
    assert {"Conv", "Gemm", "Relu", "Add"}.isdisjoint(node.op for node in program.graph.nodes if node.domain == "")


def test_float16_behind_integer_weights():
    proto = perceptron((64, 48, 10))
    wanted, given = both(optimized(proto, "quantize-weights,convert-float16"), samples(proto, 1))
    np.testing.assert_allclose(given, wanted, atol=5e-3 * np.abs(wanted).max())


def test_a_float16_bundle(tmp_path):
    """A whole bundle: declared types, and the check against ONNX Runtime before it is written."""
    proto = perceptron((64, 48, 10))
    model = optimized(proto, "convert-float16{keep_io=false}")
    bundle = compiling.compile(model, tmp_path / "b", target=find(TARGET), threads=1)
    assert bundle.inputs["x"].dtype is DType.FLOAT16
    given = bundle.run({"x": samples(proto, 3)["x"].astype(np.float16)})["y"]
    assert (given.shape, given.dtype) == ((3, 10), np.float16)
