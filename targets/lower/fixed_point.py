"""The integers of a residual sum: two factors, a shift and an offset that give what ONNX Runtime's QLinearAdd gives."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np

from deburr.ir.types import Array
from deburr.targets.kernels.workload import FixedPointAdd
from deburr.targets.lower.borders import Scale

LARGEST = 2**31 - 2**22  # what both products together may reach, so that the half and the offset still fit int32
_STEPS = (0, -1, 1, -2, 2)  # of a factor
_OFFSETS = sorted(range(-240, 241, 20), key=abs)
_NEAR = 2e-3  # further from a tie than this, no candidate decides otherwise


def fit(a: Scale, b: Scale, out: Scale, bounds: tuple[int, int] = (0, 255)) -> FixedPointAdd:
    """The nearest factors, moved by a few units where that decides more of the 65,536 sums as `reference` does.

    Plain rounding of the factors gets one to five of them wrong, all next to a tie; later layers would amplify each.
    """
    ratios = a.scale / out.scale, b.scale / out.scale
    shift = min(max(math.floor(math.log2(LARGEST / 255 / sum(ratios))), 1), 22)
    nearest = [round(ratio * 2**shift) for ratio in ratios]
    if 255 * sum(nearest) > LARGEST:  # steps so much larger than the output's that almost every sum saturates
        nearest = [min(factor, LARGEST // 510) for factor in nearest]
    left, right = _near_ties(a, b, out)
    wanted = reference(left, right, a, b, out)
    best, fewest = (*nearest, 0), left.size + 1
    reach = _NEAR * 2**shift - 256  # 256: what rounding of both factors may have moved already
    for offset, step_a, step_b in product(_OFFSETS, _STEPS, _STEPS):
        factors = (nearest[0] + step_a, nearest[1] + step_b)
        moved = abs(offset) + 255 * (abs(step_a) + abs(step_b))
        if min(factors) < 0 or 255 * sum(factors) > LARGEST or moved > max(reach, 0):
            continue
        total = (left - a.zero_point) * factors[0] + (right - b.zero_point) * factors[1] + (1 << (shift - 1)) + offset
        wrong = int(np.count_nonzero(np.clip((total >> shift) + out.zero_point, 0, 255) != wanted))
        if wrong < fewest:
            best, fewest = (*factors, offset), wrong
        if not fewest:
            break
    return FixedPointAdd(a.zero_point, best[0], b.zero_point, best[1], shift, out.zero_point, *bounds, best[2])


def of_table(table: Array, ratio: float, zero_points: tuple[int, int]) -> FixedPointAdd | None:
    """A change of scale as a sum with nothing, ``(q - zero) * factor >> shift``; None where no factor gives the table.

    :param table: [256] u8.
    :param ratio: what a step of the data is in steps of the result.
    :param zero_points: of the data and of the result.
    """
    levels, low, high = np.arange(256, dtype=np.int64) - zero_points[0], int(table.min()), int(table.max())
    shift = min(max(math.floor(math.log2(LARGEST / 255 / ratio)), 1), 22)
    for step, offset in product(_STEPS, _OFFSETS):
        factor = round(ratio * 2**shift) + step
        total = levels * factor + (1 << (shift - 1)) + offset
        fits = 0 <= 255 * factor <= LARGEST
        if fits and np.array_equal(np.clip((total >> shift) + zero_points[1], low, high), table):
            return FixedPointAdd(zero_points[0], factor, 0, 0, shift, zero_points[1], low, high, offset)
    return None


def reference(left: Array, right: Array, a: Scale, b: Scale, out: Scale) -> Array:
    """What ONNX Runtime's QLinearAdd makes of u8 `left` and `right`, before bounds: float32 with fused multiply-add."""
    single = np.float32
    ratio_a, ratio_b = single(a.scale) / single(out.scale), single(b.scale) / single(out.scale)
    fixed = single(out.zero_point) - _fused(single(a.zero_point), ratio_a, ratio_b * single(b.zero_point))
    total = _fused(left, ratio_a, _fused(right, ratio_b, fixed))
    levels: Array = np.clip(np.rint(total), 0, 255).astype(np.int64)
    return levels


def _fused(x: Any, y: np.float32, z: Any) -> Any:
    """``x * y + z`` rounded once to float32: `x` is an integer of 8 bits, so that float64 holds the product."""
    return (np.float64(y) * x + np.float64(z)).astype(np.float32)


def _near_ties(a: Scale, b: Scale, out: Scale) -> tuple[Array, Array]:
    """The pairs of u8 whose sum lies so near to a tie, and within the range, that rounding of the factors matters."""
    left, right = np.divmod(np.arange(65_536, dtype=np.int64), 256)
    real = ((left - a.zero_point) * a.scale + (right - b.zero_point) * b.scale) / out.scale + out.zero_point
    near = (np.abs(np.abs(real - np.floor(real)) - 0.5) < _NEAR) & (real > -1) & (real < 256)
    return left[near], right[near]
