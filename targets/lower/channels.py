"""Concat and Split along the channels of images that lie in blocks: whole blocks are copied, layouts stay as they are."""

from __future__ import annotations

from deburr.ir.node import Node
from deburr.ir.types import DType, TensorType
from deburr.ir.value import Value
from deburr.targets.lower import dialect
from deburr.targets.lower.borders import scale_of
from deburr.targets.lower.lookup import BINARY, ELEMENTWISE

_FAR = 32  # elementwise operators between an image in blocks and the value that is asked about


def concat(node: Node) -> Value | None:
    """Float32 images; quantized ones have a rule of their own."""
    values = [value for value in node.inputs if value is not None]
    if int(node.get("axis", 0)) % 4 != 1 or not all(_is_image(value) for value in values) or not any(map(in_blocks, values)):
        return None
    channels = [value.static_shape[1] for value in values if value.static_shape is not None]
    made = TensorType(DType.FLOAT, node.output().shape)
    return dialect.build("Concat", values, made, {"in_channels": channels}, like=node)


def split(node: Node) -> None:
    """Split, of float32 or behind a `Dequantize`, becomes a `Part` for each output."""
    data = node.input(0)
    scale, source = scale_of(data), data
    if scale is not None and data.producer is not None:
        source = data.producer.input(0)
    elif data.dtype is not DType.FLOAT:
        return
    outputs = [value for value in node.outputs if value is not None]
    if int(node.get("axis", 0)) % 4 != 1 or not _is_image(data) or not in_blocks(source) or len(outputs) < len(node.outputs):
        return
    if any(value.is_output or value.static_shape is None for value in outputs):
        return
    first = 0
    for value in outputs:
        made = dialect.with_dtype(value, source.dtype or DType.FLOAT)
        part = dialect.build("Part", [source], made, {"first": first}, like=node, name=f"{value.name}_part")
        if scale is not None:
            attributes = {"scale": scale.scale, "zero_point": scale.zero_point}
            part = dialect.build("Dequantize", [part], dialect.with_dtype(value, DType.FLOAT), attributes, like=node)
        value.replace_uses(part)
        first += (value.static_shape or (0, 0))[1]
    node.owner.remove(node)


def in_blocks(value: Value) -> bool:
    """Whether a value will lie in blocks: what a kernel on images gives, or single elements of that."""
    for _ in range(_FAR):
        node = value.producer
        if node is None or dialect.is_op(node, *dialect.ON_BLOCKS):
            return node is not None
        if not dialect.is_op(node, "Add", "Lookup", "Dequantize", "Quantize") and not dialect.is_onnx(
            node, *ELEMENTWISE, *BINARY
        ):
            return False
        value = node.input(0)
    return False


def _is_image(value: Value) -> bool:
    return value.array is None and value.static_shape is not None and len(value.static_shape) == 4
