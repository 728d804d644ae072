"""Reductions over sliding windows, and over everything but samples and channels."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.nn import functional

from deburr.passes.recover.operators.table import Call, Tensor, Uncovered, function, plain
from deburr.passes.recover.operators.windows import padded, padding

_MAX = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
_AVERAGE = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}

plain("GlobalAveragePool", lambda x: x.mean(tuple(range(2, x.ndim)), keepdim=True))
plain("GlobalMaxPool", lambda x: x.amax(tuple(range(2, x.ndim)), keepdim=True))


@function("MaxPool")
def max_pool(call: Call, x: Tensor) -> Tensor:
    if call.outputs > 1:
        raise Uncovered("its indices are read")
    kernel, strides, dilations = _window(call)
    begin, end = padding(call, x.shape[2:], kernel, strides, dilations)
    end = _reach(call, x, (kernel, strides, dilations), (begin, end))
    if any(begin) or any(end):
        lowest = -math.inf if x.is_floating_point() else torch.iinfo(x.dtype).min
        x = padded(x, begin, end, lowest)
    return _of_rank(_MAX, x)(x, kernel, strides, 0, dilations)


@function("AveragePool")
def average_pool(call: Call, x: Tensor) -> Tensor:
    kernel, strides, dilations = _window(call)
    if any(dilation != 1 for dilation in dilations):
        raise Uncovered("its window is dilated")
    begin, end = padding(call, x.shape[2:], kernel, strides, dilations)
    reach = _reach(call, x, (kernel, strides, dilations), (begin, end))
    pool = _of_rank(_AVERAGE, x)
    if not any(begin) and not any(reach):
        return pool(x, kernel, strides)
    # Sums over the window, divided by how many of its elements count.
    ones = torch.ones((1, 1, *x.shape[2:]), dtype=x.dtype, device=x.device)
    if call.get("count_include_pad", 0):
        ones = padded(ones, begin, end, 1.0)
        ones = padded(ones, [0] * len(end), [more - less for more, less in zip(reach, end, strict=True)])
    else:
        ones = padded(ones, begin, reach)
    return pool(padded(x, begin, reach), kernel, strides) / pool(ones, kernel, strides)


def _window(call: Call) -> tuple[list[int], list[int], list[int]]:
    kernel = list(call.get("kernel_shape"))
    return kernel, list(call.get("strides") or [1] * len(kernel)), list(call.get("dilations") or [1] * len(kernel))


def _reach(
    call: Call, x: Tensor, window: tuple[list[int], list[int], list[int]], pads: tuple[list[int], list[int]]
) -> list[int]:
    """The padding at the ends that the last window needs where `ceil_mode` lets it begin inside and end outside."""
    if not call.get("ceil_mode", 0):
        return pads[1]
    reach = []
    for size, kernel, stride, dilation, begin, end in zip(x.shape[2:], *window, *pads, strict=True):
        extent = dilation * (kernel - 1) + 1
        count = -(-(size + begin + end - extent) // stride) + 1
        if (count - 1) * stride >= size + begin:  # the window would begin in the padding
            count -= 1
        reach.append(max(end, (count - 1) * stride + extent - size - begin))
    return reach


def _of_rank(pools: dict[int, Any], x: Tensor) -> Any:
    if x.ndim - 2 not in pools:
        raise Uncovered(f"torch pools over 1 to 3 axes, not {x.ndim - 2}")
    return pools[x.ndim - 2]
