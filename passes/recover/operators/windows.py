"""Padding of sliding windows: ONNX writes beginnings and ends apart, or leaves them to `auto_pad`."""

from __future__ import annotations

from collections.abc import Sequence

from torch.nn import functional

from deburr.passes.recover.operators.table import Call, Tensor


def padding(
    call: Call, sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Beginnings and ends, a number for each spatial axis."""
    rank, mode = len(kernel), call.get("auto_pad", "NOTSET")
    mode = mode.decode() if isinstance(mode, bytes) else mode
    if mode == "VALID":
        return [0] * rank, [0] * rank
    if mode == "NOTSET":
        pads = list(call.get("pads") or [0] * 2 * rank)
        return pads[:rank], pads[rank:]
    total = [
        max(0, (-(-size // stride) - 1) * stride + dilation * (length - 1) + 1 - size)
        for size, length, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True)
    ]
    less, more = [one // 2 for one in total], [one - one // 2 for one in total]
    return (less, more) if mode == "SAME_UPPER" else (more, less)


def padded(x: Tensor, begin: Sequence[int], end: Sequence[int], value: float = 0.0) -> Tensor:
    """`x` with its last axes padded by a constant."""
    pairs = zip(reversed(begin), reversed(end), strict=True)
    return functional.pad(x, [size for pair in pairs for size in pair], value=value)
