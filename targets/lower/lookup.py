"""A function of one quantized tensor is a table of 256 entries: activations of any kind, and changes of scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple

import numpy as np

from deburr.ir.graph import Graph
from deburr.ir.model import Model
from deburr.ir.node import Node
from deburr.ir.types import Array, DType, TensorType
from deburr.ir.value import Value
from deburr.targets.lower import dialect, fixed_point
from deburr.targets.lower.borders import Scale, real_constant, scale_of
from deburr.targets.lower.epilogue import Output

# Operators that give one element for one element of their first input (the rest, if any, must be constants of one element).
ELEMENTWISE = frozenset({
    "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Celu", "Clip", "Cos", "Cosh", "Elu", "Erf",
    "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Log", "Mish", "Neg", "Reciprocal", "Relu",
    "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Swish", "Tan", "Tanh",
    "ThresholdedRelu",
})  # fmt: skip
BINARY = frozenset({"Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "PRelu"})
LARGEST_CONE = 64  # values between one quantized tensor and the next


def replacement(quantize: Node, opset: int) -> Value | None:
    """For elementwise operators between one quantized tensor and `Quantize`: a table on the integers, or these as they are.

    They may branch and join again, as GELU and SiLU do where they are spelt out, and pass through integers on the way.
    """
    cone = _cone(quantize.input(0))
    if cone is None:
        return None
    base, order = cone
    reals: dict[Value, Array] = {}
    for value in order:
        node = value.producer
        assert node is not None
        scale = scale_of(value)
        reals[value] = _evaluate(node, reals, opset) if scale is None else _levels(node.input(0), scale)
    out = Scale(float(quantize.get("scale")), int(quantize.get("zero_point")))
    return _apply(base, _quantize(reals[quantize.input(0)], out), quantize)


def _cone(value: Value) -> tuple[Value, list[Value]] | None:
    """The one u8 tensor that `value` is an elementwise function of, and what lies between, operands first; None for others."""
    base: Value | None = None
    order: dict[Value, None] = {}
    waiting = [value]
    while waiting:
        current = waiting[-1]
        operands = _operands(current)
        if operands is None or len(order) > LARGEST_CONE or current.static_shape != value.static_shape:
            return None
        missing = [operand for operand in operands if operand not in order]
        if missing:
            waiting += missing
            continue
        if not operands:
            found = _base(current)
            base = base or found
            if found is not base:
                return None
        order[waiting.pop()] = None
    return None if base is None else (base, list(order))


def _operands(value: Value) -> list[Value] | None:
    """The tensors that an elementwise operator combines; none for a `Dequantize`d one; None where it is neither."""
    if scale_of(value) is not None:
        return []
    node = value.producer
    if node is None or not dialect.is_onnx(node, *ELEMENTWISE, *BINARY) or len(node.outputs) != 1:
        return None
    operands = [operand for operand in node.inputs if operand is not None and _number(operand) is None]
    fits = operands and (node.op in BINARY or operands == [node.input(0)])
    return operands if fits else None


def _base(value: Value) -> Value:
    """The integers that those of a `Dequantize`d value are a table of."""
    assert value.producer is not None
    integers = value.producer.input(0)
    while integers.producer is not None and dialect.is_op(integers.producer, "Lookup"):
        integers = integers.producer.input(0)
    return integers


def _levels(integers: Value, scale: Scale) -> Array:
    """What each level of the base stands for once it went through the tables before `integers`."""
    tables = []
    while integers.producer is not None and dialect.is_op(integers.producer, "Lookup"):
        tables.append(integers.producer.input(1).array)
        integers = integers.producer.input(0)
    levels: Array = np.arange(256)
    for table in reversed(tables):
        assert table is not None
        levels = table[levels]
    real: Array = _dequantize(scale)[levels]
    return real


def _number(value: Value) -> Array | None:
    """A constant of one element, [1]; one that is stored as an integer beside its scale too."""
    array = value.array
    if array is None and value.producer is not None and dialect.is_onnx(value.producer, "DequantizeLinear"):
        array = real_constant(value.producer)
    return None if array is None or array.size != 1 else array.reshape(1)


def requantized(value: Value, out: Output) -> Value:
    """The integers of a `Dequantize`d value on the scale and within the bounds of `out`."""
    scale, node = scale_of(value), value.producer
    assert scale is not None
    assert node is not None
    assert out.scale is not None
    low, high = out.bounds.quantized(out.scale)
    integers, table = node.input(0), np.clip(_quantize(_dequantize(scale), out.scale), low, high)
    fixed = fixed_point.of_table(table, scale.scale / out.scale.scale, (scale.zero_point, out.scale.zero_point))
    if fixed is None or np.array_equal(table, np.arange(256)):
        return _apply(integers, table, node)
    # Vectors of arithmetic are several times as fast as a table, which is read one byte at a time.
    attributes = {"add": astuple(fixed)}
    return dialect.build("Add", [integers, integers], dialect.with_dtype(integers, DType.UINT8), attributes, like=node)


def _dequantize(scale: Scale) -> Array:
    levels = np.arange(256, dtype=np.int32) - scale.zero_point
    return levels.astype(np.float32) * np.float32(scale.scale)


def _quantize(real: Array, scale: Scale) -> Array:
    with np.errstate(invalid="ignore"):
        levels = np.rint(np.nan_to_num(real.astype(np.float32)) / np.float32(scale.scale)) + np.float32(scale.zero_point)
    table: Array = np.clip(levels, 0, 255).astype(np.uint8)
    return table


def _evaluate(node: Node, reals: Mapping[Value, Array], opset: int) -> Array:
    """What ONNX Runtime makes of the operands' 256 values, float32 [256]."""
    from deburr.ir.evaluate import Evaluator

    graph, data = Graph("table"), {}
    inputs: list[Value | None] = []
    for index, value in enumerate(node.inputs):
        number = None if value is None else _number(value)
        if value is None or number is not None:
            inputs.append(None if number is None else graph.add_constant(number.reshape(() if node.op == "Clip" else 1)))
            continue
        name = f"data{index}"
        inputs.append(graph.add_value(name, TensorType(DType.FLOAT, (256,))))
        data[name] = reals[value]
    graph.set_inputs([graph.value(name) for name in data])
    copy = graph.add_node(node.op, inputs, ["result"], node.attributes)
    graph.set_type(copy.output(), TensorType(DType.FLOAT, (256,)))
    graph.set_outputs([copy.output()])
    result: Array = Evaluator(Model(graph, {"": opset})).run(data)["result"]
    return result


def _apply(integers: Value, table: Array, like: Node) -> Value:
    if np.array_equal(table, np.arange(256)):
        return integers
    held = dialect.constant(like.owner, table, "table")
    return dialect.build("Lookup", [integers, held], dialect.with_dtype(integers, DType.UINT8), {}, like=like)
