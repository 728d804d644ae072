"""Operators on blocked images without a template: expressions that move numbers, or mix those of a few pixels."""

from __future__ import annotations

from typing import Any

import numpy as np

from deburr.ir.node import Node
from deburr.targets.kernels import epilogue
from deburr.targets.kernels.workload import Requantize
from deburr.targets.lower.resize import BITS


def expression(node: Node) -> tuple[Any, ...]:
    """How one of `dialect.UNTEMPLATED` is defined: a function of its tensors, and what else that takes."""
    shape, requantize = node.output().static_shape, node.get("requantize")
    match node.op:
        case "Lookup":
            return (lookup,)
        case "Concat":
            return concat, tuple(node.get("in_channels"))
        case "Part":
            return part, int(node.get("first")), int(node.get("channels")), shape
        case "Shuffle":
            return shuffle, tuple(node.get("strides")), int(node.get("groups")), int(node.get("channels")), shape
        case "Resize" if len(node.inputs) == 3:
            return (nearest,)
        case "Resize":
            how = int(node.get("data_zero_point", 0)), float(node.get("multiplier", 1.0))
            return linear, None if requantize is None else tuple(requantize), *how
    raise KeyError(node.op)


def shuffle(
    tensors: list[Any], strides: tuple[int, int], groups: int, channels: int, shape: tuple[int, int, int, int, int]
) -> list[Any]:
    """Channels (group, phase of the row, phase of the column, channel) become pixels; beyond the last channel it is repeated.

    :param channels: of the data, all phases'.
    :param shape: the result's, blocked.
    """
    from tvm import te, tirx

    (data,), block = tensors, shape[-1]
    phases = strides[0] * strides[1]
    outputs = channels // phases
    per_group = outputs // groups

    def element(n: Any, o: Any, y: Any, x: Any, c: Any) -> Any:
        phase = y % strides[0] * strides[1] + x % strides[1]
        if groups == 1 and outputs % block == 0:  # whole blocks: vectors stay vectors
            return data[n, phase * (outputs // block) + o, y // strides[0], x // strides[1], c]
        channel = tirx.min(o * block + c, outputs - 1)
        source = (channel // per_group * phases + phase) * per_group + channel % per_group
        return data[n, source // block, y // strides[0], x // strides[1], source % block]

    return [data, te.compute(shape, element, name="output")]


def nearest(tensors: list[Any]) -> list[Any]:
    """The pixel that a table names for each row and column."""
    from tvm import te

    data, rows, columns = tensors
    n, blocks, _, _, block = data.shape
    shape = (n, blocks, rows.shape[0], columns.shape[0], block)
    return [*tensors, te.compute(shape, lambda n, o, y, x, c: data[n, o, rows[y], columns[x], c], name="output")]


def linear(tensors: list[Any], requantize: tuple[int, int, int] | None, zero_point: int, multiplier: float) -> list[Any]:
    """Between two rows and two columns; integer weights are of `resize.BITS` bits."""
    from tvm import te, tirx

    data, rows, down, columns, right = tensors
    n, blocks, _, _, block = data.shape
    shape = (n, blocks, rows.shape[1], columns.shape[1], block)
    one = tirx.const(1.0, "float32") if requantize is None else tirx.const(1 << BITS, "int32")

    def element(n: Any, o: Any, y: Any, x: Any, c: Any) -> Any:
        def row(index: Any) -> Any:
            first, second = (data[n, o, index, columns[side, x], c].astype(one.ty.dtype) for side in (0, 1))
            return first * (one - right[x]) + second * right[x]

        total = row(rows[0, y]) * (one - down[y]) + row(rows[1, y]) * down[y]
        if requantize is None:
            return total
        centred = total - (zero_point << (2 * BITS))
        return epilogue.requantize(centred, tirx.const(multiplier, "float32"), Requantize(*requantize)).astype("uint8")

    return [*tensors, te.compute(shape, element, name="output")]


def part(tensors: list[Any], first: int, channels: int, shape: tuple[int, int, int, int, int]) -> list[Any]:
    """Channels from `first` on; beyond the last one of the data it is repeated.

    :param channels: of the data.
    :param shape: the result's, blocked.
    """
    from tvm import te, tirx

    (data,), block = tensors, shape[-1]

    def element(n: Any, o: Any, y: Any, x: Any, c: Any) -> Any:
        if first % block == 0:  # whole blocks: vectors stay vectors
            return data[n, o + first // block, y, x, c]
        channel = tirx.min(first + o * block + c, channels - 1)
        return data[n, channel // block, y, x, channel % block]

    return [data, te.compute(shape, element, name="output")]


def lookup(tensors: list[Any]) -> list[Any]:
    from tvm import te

    data, table = tensors
    return [data, table, te.compute(data.shape, lambda *at: table[data[at].astype("int32")], name="output")]


def concat(tensors: list[Any], channels: tuple[int, ...]) -> list[Any]:
    """Along the channels of blocked images; what lies beyond the last channel repeats it."""
    from tvm import te, tirx

    n, _, height, width, block = (int(size) for size in tensors[0].shape)
    ends = np.cumsum(channels).tolist()

    def element(b: Any, o: Any, y: Any, x: Any, c: Any) -> Any:
        value, channel = None, tirx.min(o * block + c, ends[-1] - 1)
        for tensor, count, end in reversed(list(zip(tensors, channels, ends, strict=True))):
            if (end - count) % block == 0:  # whole blocks: vectors stay vectors
                part = tensor[b, tirx.min(o - (end - count) // block, -(-count // block) - 1), y, x, c]
            else:
                part = tensor[b, (channel - (end - count)) // block, y, x, (channel - (end - count)) % block]
            value = part if value is None else tirx.if_then_else(o * block + c < end, part, value)
        return value

    return [*tensors, te.compute((n, -(-ends[-1] // block), height, width, block), element, name="output")]
