"""The operators of a lowered graph, domain "deburr": what the templates of kernels/ compute, on ONNX's plain shapes.

    Conv2d(data, weight [O, I/groups, kh, kw], bias [O], multiplier [O] or none, residual or none) -> image
        kernel strides pads dilations groups; data_zero_point, requantize = (zero point, low, high),
        add = FixedPointAdd's fields; for float: low, high; half
    MatMul(a, b [K, N] or computed, bias [N] or none, multiplier [N] or [1] or none, residual or none)
        batch rows columns depth; a_shape a_order, b_shape b_order where b is computed, out_shape out_order (Operand's fields);
        a_zero_point b_zero_point requantize add; for float results: low, high; for float: scale half
    Rows(x, scale, bias)          kind rows size; channels inner epsilon where it normalizes; plain, any shape
    Pool2d(data)        kind kernel strides pads; data_zero_point multiplier requantize
    Add(a, b)           add = FixedPointAdd's fields; for float: low, high
    Quantize(x), Dequantize(q)    scale zero_point; the integers are u8 always
    Lookup(q, table [256])        any function of one u8
    Concat(q, ...)      along the channels; in_channels
    Part(x)                       channels of x from `first` on
    Resize(x, rows, columns)      to the nearest pixel; tables of int32
    Resize(x, rows [2, H], weights [H], columns [2, W], weights [W])    between two; data_zero_point multiplier requantize
    Shuffle(x)          channels of phases (groups, phase, channel) become pixels: strides groups
    ChangeLayout(x)     from_block to_block (0: plain)

An image is [N, C, H, W], or [N, C] which stands for one pixel. layout.py gives images their blocked shape and every node the
attributes `channels`, `in_block` and `out_block`. `MatMul` and `Rows` take and give plain tensors of any rank, and so do nodes
on single elements where no blocks are about: those have the attribute `plain`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from deburr.ir.attributes import Attribute, AttributeKind
from deburr.ir.graph import Graph
from deburr.ir.model import Model
from deburr.ir.node import Node
from deburr.ir.ops import is_pure
from deburr.ir.types import Array, DType, TensorType
from deburr.ir.value import Value

DOMAIN = "deburr"
VERSION = 1


def is_op(node: Node | None, *ops: str) -> bool:
    """Whether `node` is one of these operators of ours."""
    return node is not None and node.domain == DOMAIN and node.op in ops


def is_onnx(node: Node | None, *ops: str) -> bool:
    """Whether `node` is one of these operators of ONNX."""
    return node is not None and node.domain in ("", "ai.onnx") and node.op in ops


# Operators on images in blocks that move numbers, or mix those of a few pixels: expressions in `targets.moving`, no template.
UNTEMPLATED = ("Lookup", "Concat", "Part", "Shuffle", "Resize")
# What takes and gives images in blocks; single elements of ours take either.
ON_BLOCKS = ("Conv2d", "Pool2d", "Concat", "Part", "Shuffle", "Resize")


def is_plain(node: Node) -> bool:
    """Whether a node of ours combines single elements of tensors that are in no blocks: it fuses with TVM's own around it."""
    return is_op(node, "Quantize", "Dequantize", "Lookup", "Add") and bool(node.get("plain", 0))


def is_view(node: Node) -> bool:
    """Whether a change of layout moves nothing: whole blocks of one pixel. TVM would call no kernel for it either."""
    if not is_op(node, "ChangeLayout"):
        return False
    channels, blocks = int(node.get("channels")), [int(node.get(side)) or 1 for side in ("from_block", "to_block")]
    source = node.input(0)
    image = source.static_shape if int(node.get("from_block")) else image_of(source)
    return image is not None and image[2:4] == (1, 1) and not any(channels % block for block in blocks)


def build(
    op: str,
    inputs: Sequence[Value | None],
    type: TensorType,
    attributes: Mapping[str, Any],
    *,
    like: Node,
    name: str = "",
) -> Value:
    """Put a node of ours before `like`, which lends its name; the output has this type."""
    graph = like.owner
    given = {
        key: Attribute(AttributeKind.INTS, value) if value == () else value
        for key, value in attributes.items()
        if value is not None
    }
    node = graph.add_node(op, inputs, [name or like.output().name], given, domain=DOMAIN, name=like.name, before=like)
    graph.set_type(node.output(), type)
    return node.output()


def replace(node: Node, value: Value) -> None:
    """Let `value` stand for the only output of `node`, name included where it can, and drop the node."""
    graph, old = node.owner, node.output()
    name = old.name
    if not old.replace_uses(value):  # an output that already goes by another name: a copy is due
        copy = graph.add_node("Identity", [value], [name], before=node).output()
        graph.set_type(copy, value.type)
        old.replace_uses(copy)
    graph.remove(node)
    if not value.is_output and value.producer is not None and value.name.startswith(name):
        graph.rename(value, name)


def remove_dead(model: Model) -> None:
    """Drop what nobody reads: our own operators (all pure), and those that are pure by ONNX's schema."""
    graph = model.graph
    for node in reversed(list(graph.nodes)):
        used = any(value is not None and (value.uses or value.is_output) for value in node.outputs)
        if not used and (node.domain == DOMAIN or is_pure(node, model)):
            graph.remove(node)
    for value in graph.constants:
        if not value.uses and not value.is_output:
            graph.remove_value(value)


def image(shape: Sequence[int]) -> tuple[int, int, int, int] | None:
    """N, C, H, W of an image's plain shape; None where it is none."""
    if len(shape) == 4:
        return shape[0], shape[1], shape[2], shape[3]
    return (shape[0], shape[1], 1, 1) if len(shape) == 2 else None


def image_of(value: Value) -> tuple[int, int, int, int] | None:
    """N, C, H, W of a value that is an image with static dims."""
    return None if value.static_shape is None else image(value.static_shape)


def single_use(value: Value) -> bool:
    """Whether exactly one input reads the value and nothing outside the graph does."""
    return len(value.uses) == 1 and not value.is_output


def scalar(value: Value | None) -> float | None:
    """The number that a constant of one element holds."""
    array = None if value is None else value.array
    return None if array is None or array.size != 1 else float(array.reshape(-1)[0])


def constant(graph: Graph, array: Array, name: str) -> Value:
    """A constant that owns its memory in row-major order."""
    return graph.add_constant(np.ascontiguousarray(array), name)


def with_dtype(value: Value, dtype: DType) -> TensorType:
    """The type of `value` with other elements."""
    return TensorType(dtype, value.shape)
