"""Operators on blocked images that only move numbers, as expressions."""

from __future__ import annotations

from typing import Any


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
