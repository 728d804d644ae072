"""A function of one quantized tensor is a table of 256 entries: activations of any kind, and changes of scale."""

from __future__ import annotations

import numpy as np

from deburr.ir.graph import Graph
from deburr.ir.model import Model
from deburr.ir.node import Node
from deburr.ir.types import Array, DType, TensorType
from deburr.ir.value import Value
from deburr.targets.lower import dialect
from deburr.targets.lower.borders import Scale, scale_of
from deburr.targets.lower.epilogue import Output

# Operators that give one element for one element of their first input (the rest, if any, must be constants of one element).
ELEMENTWISE = frozenset({
    "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Celu", "Clip", "Cos", "Cosh", "Elu", "Erf",
    "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Log", "Mish", "Neg", "Reciprocal", "Relu",
    "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Swish", "Tan", "Tanh",
    "ThresholdedRelu",
})  # fmt: skip
BINARY = frozenset({"Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "PRelu"})


def replacement(quantize: Node, opset: int) -> Value | None:
    """For `Dequantize`, elementwise operators, `Quantize`: a table on the integers, or the integers as they are."""
    chain: list[Node] = []
    value = quantize.input(0)
    while (scale := scale_of(value)) is None:
        node = value.producer
        if node is None or not is_elementwise(node):
            return None
        chain.append(node)
        value = node.input(_data_index(node))
    assert value.producer is not None
    out = Scale(float(quantize.get("scale")), int(quantize.get("zero_point")))
    real = _dequantize(scale)
    for node in reversed(chain):
        real = _evaluate(node, real, opset)
    return _apply(value.producer.input(0), _quantize(real, out), quantize)


def requantized(value: Value, out: Output) -> Value:
    """The integers of a `Dequantize`d value on the scale and within the bounds of `out`."""
    scale, node = scale_of(value), value.producer
    assert scale is not None
    assert node is not None
    assert out.scale is not None
    low, high = out.bounds.quantized(out.scale)
    return _apply(node.input(0), np.clip(_quantize(_dequantize(scale), out.scale), low, high), node)


def is_elementwise(node: Node) -> bool:
    """Whether each element of the only output depends on the same element of one input, and on constants."""
    others = [value for index, value in enumerate(node.inputs) if value is not None and index != _data_index(node)]
    known = dialect.is_onnx(node, *ELEMENTWISE) or (dialect.is_onnx(node, *BINARY) and len(node.inputs) == 2)
    return known and len(node.outputs) == 1 and all(dialect.scalar(value) is not None for value in others)


def _data_index(node: Node) -> int:
    """Which input holds the data: the first, or the second of `constant - x`."""
    return 1 if node.op in BINARY and len(node.inputs) == 2 and node.input(0).array is not None else 0


def _dequantize(scale: Scale) -> Array:
    levels = np.arange(256, dtype=np.int32) - scale.zero_point
    return levels.astype(np.float32) * np.float32(scale.scale)


def _quantize(real: Array, scale: Scale) -> Array:
    with np.errstate(invalid="ignore"):
        levels = np.rint(np.nan_to_num(real.astype(np.float32)) / np.float32(scale.scale)) + np.float32(scale.zero_point)
    table: Array = np.clip(levels, 0, 255).astype(np.uint8)
    return table


def _evaluate(node: Node, real: Array, opset: int) -> Array:
    """What ONNX Runtime makes of `real` (float32 [256])."""
    from deburr.ir.evaluate import Evaluator

    graph = Graph("table")
    data = graph.add_value("data", TensorType(DType.FLOAT, (256,)))
    graph.set_inputs([data])
    inputs = [None if value is None else graph.add_constant(value.array.reshape(-1)) if value.array is not None else data
              for value in node.inputs]  # fmt: skip
    if node.op == "Clip":
        inputs = [value if value is None or value is data else _as_scalar(graph, value) for value in inputs]
    copy = graph.add_node(node.op, inputs, ["result"], node.attributes)
    graph.set_type(copy.output(), TensorType(DType.FLOAT, (256,)))
    graph.set_outputs([copy.output()])
    return Evaluator(Model(graph, {"": opset})).run({"data": real})["result"]


def _as_scalar(graph: Graph, value: Value) -> Value:
    assert value.array is not None
    return graph.add_constant(value.array.reshape(()))


def _apply(integers: Value, table: Array, like: Node) -> Value:
    if np.array_equal(table, np.arange(256)):
        return integers
    held = dialect.constant(like.owner, table, "table")
    return dialect.build("Lookup", [integers, held], dialect.with_dtype(integers, DType.UINT8), {}, like=like)
