"""What happens to an accumulator before it is stored, as expressions: requantization, residual sums, clamps.

Only operations whose result every target agrees on to the bit are used for integers: one float32 multiplication, rounding half
to even, and int32 arithmetic. No sum of float products appears, so fused multiply-add cannot change a bit.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from deburr.targets.kernels.workload import FixedPointAdd, FloatEpilogue, Requantize

if TYPE_CHECKING:
    Expression = Any  # tvm.tirx.Expr


def requantize(accumulator: Expression, multiplier: Expression, how: Requantize) -> Expression:
    """int32 accumulator -> int32 in [low, high]."""
    return quantize(accumulator.astype("float32") * multiplier, how)


def quantize(scaled: Expression, how: Requantize) -> Expression:
    """float32 -> int32 in [low, high], the zero point added.

    The clamp stands before the rounding, where it means the same (its bounds are integers) and keeps a huge product from
    overflowing. ``llvm.lrint`` rounds half to even and converts in one instruction, where ``nearbyint`` and a cast take two or
    three: up to a quarter of a 1x1 convolution's time.
    """
    from tvm import tirx

    clamped = clamp(scaled, how.low - how.zero_point, how.high - how.zero_point)
    return tirx.call_llvm_pure_intrin("int32", "llvm.lrint", clamped) + how.zero_point


def dequantize(value: Expression, zero_point: int, scale: float) -> Expression:
    """u8 -> float32."""
    from tvm import tirx

    return (value.astype("int32") - zero_point).astype("float32") * tirx.const(scale, "float32")


def total(a: Expression, b: Expression, fixed: FixedPointAdd | None, real: FloatEpilogue | None) -> Expression:
    """The sum of two tensors' elements: u8 with fixed-point rescaling, or float32 with a clamp."""
    if fixed is not None:
        return fixed_point_add(a.astype("int32"), b.astype("int32"), fixed).astype("uint8")
    return a + b if real is None else float_epilogue(a, b, real)


def fixed_point_add(a: Expression, b: Expression, how: FixedPointAdd) -> Expression:
    """Two int32 that hold u8 values -> int32 in [low, high]; the constants are folded into one."""
    constant = (1 << (how.shift - 1)) + how.offset - how.a_zero * how.a_multiplier - how.b_zero * how.b_multiplier
    total = a * how.a_multiplier + b * how.b_multiplier + constant
    return clamp((total >> how.shift) + how.zero_point, how.low, how.high)


def float_epilogue(value: Expression, residual: Expression | None, how: FloatEpilogue) -> Expression:
    """float32: residual sum and clamp; an infinite bound costs nothing."""
    return clamp(value if residual is None else value + residual, how.low, how.high)


def clamp(value: Expression, low: float, high: float) -> Expression:
    """``max(min(value, high), low)``; the bounds take the value's own type."""
    from tvm import tirx

    if not math.isinf(high):
        value = tirx.min(value, high)
    return value if math.isinf(low) else tirx.max(value, low)
