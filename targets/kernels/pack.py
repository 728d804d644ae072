"""Brings ONNX weights, biases and multipliers into the shapes that kernels take, and folds the data's zero point away."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from deburr.ir.errors import DeburrError
from deburr.targets.kernels import layout, matmul, winograd

if TYPE_CHECKING:
    from deburr.ir.types import Array
    from deburr.targets.kernels.workload import Conv2d, MatMul
    from deburr.targets.target import Target

INT32 = np.iinfo(np.int32)


def pack_conv2d(
    workload: Conv2d, target: Target, weight: Array, bias: Array | None = None, multiplier: Array | None = None
) -> dict[str, Array]:
    """The constant arguments of a convolution's kernel, by name: weight, bias and, for integers, multiplier.

    :param weight: ``[O, I/groups, kh, kw]``, int8 or float32, as ONNX has it (Gemm: ``[O, I, 1, 1]``).
    :param bias: [O], int32 in units of the accumulator, or float32; the zero point of the data is **not** folded in yet.
    :param multiplier: [O] or [], float32.
    :raises DeburrError: E402 where an int32 accumulator could overflow.
    """
    w = workload
    expected = (w.out_channels, w.in_channels // w.groups, *w.kernel)
    if weight.shape != expected:
        raise ValueError(f"weight {weight.shape} where the workload has {expected}")
    packed_weight = _pack_weight(w, target.isa, weight)
    if w.dtype == "float32":
        given = np.zeros(w.out_channels, np.float32) if bias is None else bias.astype(np.float32)
        return {"weight": packed_weight, "bias": pack_channels(given, w.out_block)}
    folded = fold_zero_point(weight, bias, w.data_zero_point)
    shift = 0 if w.is_blocked_depthwise else layout.weight_layout(w, target.isa).data_shift
    # What the kernel takes off the data comes back here. It cannot overflow: it is the sum for data of `shift` everywhere.
    folded = folded + shift * weight.reshape(len(weight), -1).sum(axis=1, dtype=np.int32)
    scale = np.ones((), np.float32) if multiplier is None else multiplier.astype(np.float32)
    scale = np.broadcast_to(scale, (w.out_channels,))
    return {
        "weight": packed_weight,
        "bias": pack_channels(folded, w.out_block),
        "multiplier": pack_channels(scale, w.out_block),
    }


def pack_matmul(
    workload: MatMul, target: Target, matrix: Array | None, bias: Array | None, multiplier: Array | None
) -> dict[str, Array]:
    """The constant arguments of a matrix product's kernel, by name, as `pack_conv2d`.

    :param matrix: [K, N], int8 or float32; None where it is computed.
    """
    like = matmul.convolution(workload, target.isa)
    if matrix is None:
        if workload.dtype == "float32" or multiplier is None:
            return {}
        return {
            "multiplier": pack_channels(np.broadcast_to(multiplier.astype(np.float32), (workload.columns,)), workload.block)
        }
    deep = np.zeros((workload.columns, like.in_channels, 1, 1), matrix.dtype)
    deep[:, : workload.depth, 0, 0] = matrix.T
    return pack_conv2d(like, target, deep, bias, multiplier)


def fold_zero_point(weight: Array, bias: Array | None, zero_point: int) -> npt.NDArray[np.int32]:
    """``bias - zero_point * sum(weight)`` per output channel, checked: no u8 input whatever can overflow the accumulator.

    :param weight: [O, ...] int8.
    :raises DeburrError: E402, naming the channel.
    """
    flat = weight.astype(np.int64).reshape(weight.shape[0], -1)
    folded = -zero_point * flat.sum(axis=1) + (0 if bias is None else bias.astype(np.int64))
    lowest, highest = 255 * np.minimum(flat, 0).sum(axis=1), 255 * np.maximum(flat, 0).sum(axis=1)
    low = np.minimum.reduce([lowest, folded, folded + lowest])
    high = np.maximum.reduce([highest, folded, folded + highest])
    overflowing = np.flatnonzero((low < INT32.min) | (high > INT32.max))
    if overflowing.size:
        channel = int(overflowing[0])
        raise DeburrError(
            "E402",
            "an integer convolution that does not fit int32",
            where=f"output channel {channel}",
            why=f"its accumulator can lie anywhere in [{int(low[channel])}, {int(high[channel])}]",
            hint="leave this layer in float",
        )
    result: npt.NDArray[np.int32] = folded.astype(np.int32)
    return result


def pack_channels(values: Array, block: int) -> Array:
    """[C] -> [ceil(C / block), block], padded with zeros."""
    padded = np.zeros(layout.blocks(len(values), block) * block, values.dtype)
    padded[: len(values)] = values
    return padded.reshape(-1, block)


def pack_activation(data: Array, block: int) -> Array:
    """[N, C, H, W] -> [N, ceil(C / block), H, W, block], padding channels 0: for constants and for tests."""
    n, channels, height, width = data.shape
    padded = np.zeros((n, layout.blocks(channels, block) * block, height, width), data.dtype)
    padded[:, :channels] = data
    return np.ascontiguousarray(padded.reshape(n, -1, block, height, width).transpose(0, 1, 3, 4, 2))


def unpack_activation(data: Array, channels: int) -> Array:
    """[N, blocks, H, W, block] -> [N, C, H, W]."""
    n, blocks, height, width, block = data.shape
    return np.ascontiguousarray(data.transpose(0, 1, 4, 2, 3).reshape(n, blocks * block, height, width)[:, :channels])


def _pack_weight(workload: Conv2d, isa: str, weight: Array) -> Array:
    if workload.is_blocked_depthwise:
        return _pack_depthwise(workload, isa, weight)
    size = winograd.tile_size(workload, isa)
    return winograd.pack_weight(workload, weight, size) if size else _pack_dense(workload, isa, weight)


def _pack_dense(workload: Conv2d, isa: str, weight: Array) -> Array:
    """``[O, I/g, kh, kw]`` as `WeightLayout` has it; each group of channels at its place in a span of J blocks."""
    w, kind = workload, layout.weight_layout(workload, isa)
    outputs, spanned, height, width, parts, block, group = layout.weight_shape(w, isa)
    wide = np.zeros((outputs * block, spanned * w.in_block, height, width * kind.taps), np.dtype(kind.dtype))
    outputs_per_group, inputs_per_group = w.out_channels // w.groups, w.in_channels // w.groups
    for index, first in enumerate(layout.first_input_blocks(w)):
        rows = np.arange(index * block, min((index + 1) * block, w.out_channels))
        columns = (rows // outputs_per_group * inputs_per_group - first * w.in_block)[:, None] + np.arange(inputs_per_group)
        wide[rows[:, None], columns, :, : w.kernel[1]] = weight[rows]
    split = wide.reshape(outputs, block, spanned, w.in_block, height, width, kind.taps)
    summed = split.transpose(0, 2, 4, 5, 1, 6, 3).reshape(outputs, spanned, height, width, block, parts, group)
    return np.ascontiguousarray(summed.swapaxes(4, 5))


def _pack_depthwise(workload: Conv2d, isa: str, weight: Array) -> Array:
    """``[C, 1, kh, kw] -> [C/b, kh, kw, b]``."""
    blocks, height, width, block = layout.depthwise_weight_shape(workload)
    wide = np.zeros((blocks * block, height, width), np.dtype(layout.depthwise_layout(workload, isa).dtype))
    wide[: workload.out_channels] = weight[:, 0]
    return np.ascontiguousarray(wide.reshape(blocks, block, height, width).transpose(0, 2, 3, 1))
