"""Operators that only move numbers change places with the `Dequantize` before them, so that they run on u8."""

from __future__ import annotations

from deburr.ir.node import Node
from deburr.ir.types import DType
from deburr.ir.value import Value
from deburr.targets.lower import dialect, resize
from deburr.targets.lower.borders import scale_of
from deburr.targets.lower.windows import max_window

RESHAPES = ("Flatten", "Reshape", "Squeeze", "Unsqueeze", "Identity")


def move_dequantize_down(node: Node) -> None:
    """move(Dequantize(q)) becomes Dequantize(move(q)), to the bit."""
    if not dialect.is_onnx(node, *RESHAPES, "Transpose", "MaxPool", "GlobalMaxPool", "Resize"):
        return
    scale, dequantize = scale_of(node.input(0)), node.input(0).producer
    moved = None if scale is None or dequantize is None else _moved(node, dequantize.input(0))
    if moved is None or scale is None:
        return
    attributes = {"scale": scale.scale, "zero_point": scale.zero_point}
    real = dialect.build("Dequantize", [moved], dialect.with_dtype(node.output(), DType.FLOAT), attributes, like=node)
    dialect.replace(node, real)


def pool(node: Node, data: Value) -> Value | None:
    """MaxPool and GlobalMaxPool by their template, whatever the data's type; None where none fits."""
    window = max_window(node)
    if isinstance(window, str) or data.dtype is None:
        return None
    attributes = {"kind": "max", "kernel": window.kernel, "strides": window.strides, "pads": window.pads}
    return dialect.build("Pool2d", [data], dialect.with_dtype(node.output(), data.dtype), attributes, like=node)


def _moved(node: Node, integers: Value) -> Value | None:
    if dialect.is_onnx(node, "MaxPool", "GlobalMaxPool"):
        return pool(node, integers)
    if dialect.is_onnx(node, "Resize"):
        return resize.nearest(node, integers)
    if node.output().static_shape is None:
        return None
    copy = node.owner.add_node(node.op, [integers, *node.inputs[1:]], 1, node.attributes, name=node.name, before=node)
    node.owner.set_type(copy.output(), dialect.with_dtype(node.output(), DType.UINT8))
    return copy.output()
