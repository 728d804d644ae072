"""Where real numbers become u8 and back: QuantizeLinear and DequantizeLinear as `Quantize` and `Dequantize`.

Signed activations are shifted by 128, zero point too: nothing is lost, and kernels see u8 only.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from deburr.ir.graph import Graph
from deburr.ir.node import Node
from deburr.ir.types import Array, DType, broadcastable
from deburr.ir.value import Value
from deburr.passes.core import Context
from deburr.targets.lower import dialect


class Scale(NamedTuple):
    """``real = scale * (q - zero_point)`` for a whole tensor of u8; `scale` is a float32."""

    scale: float
    zero_point: int


class ChannelScale(NamedTuple):
    """Integer weights, their scale along `axis` (shape [channels], or [1] for all), zero point 0."""

    integers: Array
    scale: Array
    axis: int


def mark_borders(graph: Graph, context: Context) -> None:
    """Replace every pair of activation quantizers that the templates can stand for; the others stay as they are."""
    for node in list(graph.nodes):
        if node.graph is not None and dialect.is_onnx(node, "QuantizeLinear"):
            _mark_quantize(graph, node, context)
    for node in list(graph.nodes):  # integer inputs of the model
        if node.graph is not None and dialect.is_onnx(node, "DequantizeLinear"):
            _mark_plain_dequantize(graph, node)


def scale_of(value: Value) -> Scale | None:
    """The scale of a `Dequantize`d value; None for any other."""
    node = value.producer
    if node is None or not dialect.is_op(node, "Dequantize"):
        return None
    return Scale(float(node.get("scale")), int(node.get("zero_point")))


def quantized_weight(value: Value) -> ChannelScale | None:
    """The integers behind DequantizeLinear(constant, scale, zero point 0); u8 with zero point 128 counts as s8."""
    node = value.producer
    if node is None or not dialect.is_onnx(node, "DequantizeLinear"):
        return None
    integers, scale = _integers(node.input(0)), node.input(1).array
    zero = node.optional_input(2)
    zeros = np.zeros(1, np.int32) if zero is None else zero.array
    if integers is None or scale is None or zeros is None or scale.ndim > 1 or scale.dtype != np.float32:
        return None
    if in_blocks(value):
        return None
    if node.input(0).dtype is DType.INT4:  # kernels read bytes
        integers, zeros = integers.astype(np.int8), zeros.astype(np.int8)
    if integers.dtype == np.uint8 and np.all(zeros == 128):
        integers, zeros = (integers.astype(np.int16) - 128).astype(np.int8), np.zeros(1, np.int32)
    if np.any(zeros != 0) or integers.dtype not in (np.int8, np.int32):
        return None
    axis = int(node.get("axis", 1))
    return ChannelScale(integers, scale.reshape(-1), axis % max(integers.ndim, 1))


def in_blocks(value: Value) -> bool:
    """Whether a value is dequantized with a scale for each block: no integer kernel sums such products."""
    node = value.producer
    return node is not None and dialect.is_onnx(node, "DequantizeLinear") and bool(node.get("block_size", 0))


def fold_weights(graph: Graph) -> None:
    """Weights that no integer operator took become float32 constants."""
    for node in list(graph.nodes):
        if dialect.is_onnx(node, "DequantizeLinear") and not node.output().is_output:
            real = real_constant(node)
            if real is not None:
                node.output().replace_uses(dialect.constant(graph, real, node.output().name))


def real_constant(node: Node) -> Array | None:
    """What a DequantizeLinear makes of constants, float32; None where they are none."""
    integers, scale, zero = _integers(node.input(0)), node.input(1).array, node.optional_input(2)
    zeros = np.zeros((), np.int32) if zero is None else zero.array
    if integers is None or scale is None or zeros is None or scale.dtype != np.float32:
        return None
    if scale.ndim > 1 and not node.get("block_size", 0):
        return None
    zero_point, step = _spread(zeros, node, integers.shape), _spread(scale, node, integers.shape)
    centred = integers.astype(np.int32) - zero_point.astype(np.int32)
    real: Array = (centred.astype(np.float32) * step.astype(np.float32)).astype(np.float32)
    return real


def _spread(operand: Array, node: Node, shape: tuple[int, ...]) -> Array:
    """A scale or zero point of a DequantizeLinear as it broadcasts against its integers."""
    return broadcastable(operand, shape, int(node.get("axis", 1)), int(node.get("block_size", 0)))


def _integers(value: Value) -> Array | None:
    """A constant, or the result of QuantizeLinear on one (weights that are stored as float beside their quantizers)."""
    if value.array is not None:
        return value.array
    node = value.producer
    if node is None or not dialect.is_onnx(node, "QuantizeLinear"):
        return None
    real, scale, zero = node.input(0).array, node.input(1).array, node.optional_input(2)
    if real is None or scale is None or zero is None or zero.array is None or zero.dtype not in (DType.INT8, DType.UINT8):
        return None
    if node.get("block_size", 0):
        return None
    shape = [1] * real.ndim
    if scale.ndim == 1 and scale.size > 1:
        shape[int(node.get("axis", 1)) % real.ndim] = -1
    low, high, dtype = (-128, 127, np.int8) if zero.dtype is DType.INT8 else (0, 255, np.uint8)
    steps, zeros = scale.reshape(shape).astype(np.float32), zero.array.reshape(shape).astype(np.float32)
    integers: Array = np.clip(np.rint(real.astype(np.float32) / steps) + zeros, low, high).astype(dtype)
    return integers


def _mark_quantize(graph: Graph, node: Node, context: Context) -> None:
    value = node.output()
    scale, shift = _tensor_scale(node), _shift(value)
    if node.input(0).array is not None:
        return  # a weight
    if shift is None:
        context.remark(node, f"its integers are {value.dtype}, and kernels read 8 bits: runs in float", "calibrate for u8")
        return
    if scale is None or node.input(0).static_shape is None:
        context.remark(node, "its scale is not one constant for a u8 or s8 tensor: runs in float", "quantize per tensor")
        return
    readers = [reader for reader in value.consumers if dialect.is_onnx(reader, "DequantizeLinear") and _tensor_scale(reader)]
    if shift and (len(readers) < len(value.consumers) or value.is_output):
        context.remark(node, "something other than DequantizeLinear reads signed integers: runs in float", "use the QDQ form")
        return
    attributes = {"scale": scale.scale, "zero_point": scale.zero_point + shift}
    integers = dialect.build("Quantize", [node.input(0)], dialect.with_dtype(value, DType.UINT8), attributes, like=node)
    for reader in readers:
        _replace_dequantize(reader, integers, shift)
    dialect.replace(node, integers)


def _mark_plain_dequantize(graph: Graph, node: Node) -> None:
    value = node.input(0)
    if value.dtype is DType.UINT8 and value.array is None and _tensor_scale(node) and value.static_shape is not None:
        _replace_dequantize(node, value, 0)


def _replace_dequantize(node: Node, integers: Value, shift: int) -> None:
    scale = _tensor_scale(node)
    assert scale is not None
    attributes = {"scale": scale.scale, "zero_point": scale.zero_point + shift}
    real = dialect.build("Dequantize", [integers], dialect.with_dtype(node.output(), DType.FLOAT), attributes, like=node)
    dialect.replace(node, real)


def _tensor_scale(node: Node) -> Scale | None:
    scale, zero = dialect.scalar(node.input(1)), node.optional_input(2)
    zero_point = 0.0 if zero is None else dialect.scalar(zero)
    if scale is None or zero_point is None or node.input(1).dtype is not DType.FLOAT or not scale > 0:
        return None
    return Scale(scale, int(zero_point))


def _shift(value: Value) -> int | None:
    return {DType.UINT8: 0, DType.INT8: 128}.get(value.dtype or DType.UNDEFINED)
