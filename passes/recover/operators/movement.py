"""Elements elsewhere: shapes, order of axes, repetition and padding."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.nn import functional

from deburr.passes.recover.operators.table import Call, Tensor, Uncovered, function


@function("Concat")
def concat(call: Call, *tensors: Tensor) -> Tensor:
    return torch.cat(tensors, call.get("axis", 1))


@function("Flatten")
def flatten(call: Call, x: Tensor) -> Tensor:
    axis = call.get("axis", 1)
    axis = axis if axis >= 0 else axis + x.ndim
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


@function("Reshape")
def reshape(call: Call, x: Tensor, shape: Tensor) -> Tensor:
    sizes = call.list("shape", shape) or []
    if not call.get("allowzero", 0):
        sizes = [x.shape[index] if size == 0 else size for index, size in enumerate(sizes)]
    return x.reshape(sizes)


@function("Squeeze")
def squeeze(call: Call, x: Tensor, axes: Tensor | None = None) -> Tensor:
    chosen = call.list("axes", axes)
    return x.squeeze() if chosen is None else x.squeeze(tuple(chosen))


@function("Unsqueeze")
def unsqueeze(call: Call, x: Tensor, axes: Tensor | None = None) -> Tensor:
    chosen = call.list("axes", axes) or []
    rank = x.ndim + len(chosen)
    for axis in sorted(one % rank for one in chosen):
        x = x.unsqueeze(axis)
    return x


@function("Transpose")
def transpose(call: Call, x: Tensor) -> Tensor:
    return x.permute(call.list("perm") or list(reversed(range(x.ndim))))


@function("Expand")
def expand(call: Call, x: Tensor, shape: Tensor) -> Tensor:
    wanted = torch.broadcast_shapes(x.shape, tuple(call.list("shape", shape) or ()))
    return x.expand(wanted)


@function("Tile")
def tile(call: Call, x: Tensor, repeats: Tensor) -> Tensor:
    return x.repeat(call.list("repeats", repeats))


@function("Split")
def split(call: Call, x: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
    axis, lengths = call.get("axis", 0), call.list("split", sizes)
    if lengths is None:
        length = -(-x.shape[axis] // call.outputs)
        lengths = [length] * (call.outputs - 1)
        lengths.append(x.shape[axis] - sum(lengths))
    parts: tuple[Tensor, ...] = torch.split(x, lengths, axis)
    return parts


@function("Slice")
def slice_(call: Call, x: Tensor, *given: Tensor | None) -> Tensor:
    """Starts, ends, axes and steps are inputs since opset 10, attributes before."""
    given = (*given, *(None,) * (4 - len(given)))
    names = ("starts", "ends", "axes", "steps")
    starts, ends, axes, steps = (call.list(name, one) for name, one in zip(names, given, strict=True))
    count = len(starts or ())
    chosen, strides = axes or range(count), steps or [1] * count
    for start, end, axis, step in zip(starts or (), ends or (), chosen, strides, strict=True):
        x = _cut(x, axis % x.ndim, slice(start, _bound(end, step, x.shape[axis]), step))
    return x


def _cut(x: Tensor, axis: int, wanted: slice) -> Tensor:
    first, last, step = wanted.indices(x.shape[axis])
    if step < 0:  # torch slices forwards only
        return x.index_select(axis, torch.arange(first, last, step, device=x.device))
    return x[(slice(None),) * axis + (slice(first, max(first, last), step),)]


def _bound(end: int, step: int, size: int) -> int | None:
    """Python reads an end of -1 as the last element; so far below 0 ONNX means in front of the first one."""
    return None if step < 0 and end < -size else end


@function("Pad")
def pad(call: Call, x: Tensor, pads: Tensor | None = None, value: Tensor | None = None, axes: Tensor | None = None) -> Tensor:
    mode = call.get("mode", "constant")
    mode = mode.decode() if isinstance(mode, bytes) else mode
    sizes = call.list("pads", pads) or []
    chosen = [axis % x.ndim for axis in call.list("axes", axes) or range(x.ndim)]
    half = len(chosen)
    by_axis = {axis: (sizes[index], sizes[half + index]) for index, axis in enumerate(chosen)}
    filler: Any = value.item() if value is not None else call.get("value", 0.0)
    flat = [size for axis in reversed(range(x.ndim)) for size in by_axis.get(axis, (0, 0))]
    if mode == "constant":
        return functional.pad(x, flat, value=filler)
    if any(size < 0 for size in sizes):
        raise Uncovered(f"it cuts, in mode {mode}")
    return _pad_by_index(x, by_axis, mode)


def _pad_by_index(x: Tensor, by_axis: dict[int, tuple[int, int]], mode: str) -> Tensor:
    """Edge, reflection and wrapping as a choice of positions, along any axis of any tensor."""
    for axis, (begin, end) in by_axis.items():
        size = x.shape[axis]
        position = torch.arange(-begin, size + end, device=x.device)
        if mode == "edge":
            position = position.clamp(0, size - 1)
        elif mode == "wrap":
            position = position.remainder(size)
        elif mode == "reflect":
            period = max(2 * (size - 1), 1)
            position = position.remainder(period)
            position = torch.minimum(position, (period - position).remainder(period) if size > 1 else position)
        else:
            raise Uncovered(f"there is no mode {mode}")
        x = x.index_select(axis, position)
    return x


@function("DepthToSpace")
def depth_to_space(call: Call, x: Tensor) -> Tensor:
    size, mode = call.get("blocksize"), call.get("mode", "DCR")
    count, channels, height, width = x.shape
    if mode in ("CRD", b"CRD"):
        return functional.pixel_shuffle(x, size)
    blocks = x.reshape(count, size, size, channels // size**2, height, width)
    return blocks.permute(0, 3, 4, 1, 5, 2).reshape(count, channels // size**2, height * size, width * size)


@function("SpaceToDepth")
def space_to_depth(call: Call, x: Tensor) -> Tensor:
    size = call.get("blocksize")
    count, channels, height, width = x.shape
    blocks = x.reshape(count, channels, height // size, size, width // size, size)
    order = (0, 1, 3, 5, 2, 4) if call.get("mode", "DCR") in ("CRD", b"CRD") else (0, 3, 5, 1, 2, 4)
    return blocks.permute(order).reshape(count, channels * size**2, height // size, width // size)


@function("Trilu")
def triangle(call: Call, x: Tensor, diagonal: Tensor | None = None) -> Tensor:
    offset = 0 if diagonal is None else int(diagonal)
    return torch.triu(x, offset) if call.get("upper", 1) else torch.tril(x, offset)
