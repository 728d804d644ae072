"""exp, erf and tanh of float32 as polynomials, for whole vectors: LLVM calls the C library for each element.

Errors are within a few units of the last place (tests/targets/test_transcendental.py holds the bounds), infinities and NaN as
C has them. Only additions, multiplications and one division: every target gives nearly the same bits, and none needs a libm.
Coefficients are least squares in float64 at Chebyshev points, weighted anew until the largest relative error is least (Lawson
1961), 5e-11 for exp, 6e-8 for erf and 7e-9 for tanh; float32 then rounds to about 4e-7.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

LN2_HIGH = 355 / 512  # few bits: its multiples are exact
LN2_LOW, LOG2_E = math.log(2) - LN2_HIGH, math.log2(math.e)
_EXP = (1.97901354e-4, 1.39448686e-3, 8.33349834e-3, 4.16662922e-2, 1.66666659e-1, 5.00000007e-1)  # (e**r - 1 - r) / r²
_EXP_REACH = (-104.0, 89.0)  # beyond, the result is 0 or infinite
_ERF_REACH, _TANH_REACH = 4.0, 9.0  # beyond, float32 knows only -1 and 1
# Numerators (times x) and denominators in x².
_ERF = (
    (1.91107628e-08, -1.94230173e-06, 1.47285844e-04, 3.99056773e-03, 5.15248926e-02, 2.07125337e-01, 1.12837909),
    (1.02110962e-03, 1.49580709e-02, 1.17970780e-01, 5.16891299e-01, 1.0),
)  # fmt: skip
_TANH = (
    (-8.48870873e-14, 5.27794824e-11, -2.02252270e-08, 1.11543091e-05, 3.10395633e-03, 1.30840102e-01, 9.99999993e-01),
    (2.54614537e-04, 2.44951789e-02, 4.64173373e-01, 1.0),
)  # fmt: skip


@cache
def register() -> None:
    """Make them what TVM lowers these functions to on CPUs."""
    from tvm import tirx

    for name, rule in {"exp": _exp, "erf": _erf, "tanh": _tanh}.items():
        tirx.register_intrin_lowering(f"tirx.{name}", target="llvm", f=_for_float32(rule), level=99)


def _for_float32(rule: Any) -> Any:
    """The rule where elements are float32; other types keep what TVM makes of them."""

    def lower(call: Any) -> Any:
        from tvm import tirx

        (x,), dtype = call.args, str(call.ty.dtype)
        if not dtype.startswith("float32"):
            return None
        held = tirx.Var("x", dtype)
        return tirx.Let(held, x, rule(_Numbers(dtype), held))

    return lower


class _Numbers:
    """Constants and casts in the shape of a vector."""

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype
        self.integers = dtype.replace("float32", "int32")

    def __call__(self, number: float) -> Any:
        from tvm import tirx

        return tirx.const(number, self.dtype)

    def integer(self, number: int) -> Any:
        from tvm import tirx

        return tirx.const(number, self.integers)

    def within(self, x: Any, low: float, high: float) -> Any:
        from tvm import tirx

        return tirx.max(tirx.min(x, self(high)), self(low))

    def let(self, value: Any, body: Any, dtype: str = "") -> Any:
        """``body(value)`` with the value computed once."""
        from tvm import tirx

        held = tirx.Var("v", dtype or self.dtype)
        return tirx.Let(held, value, body(held))

    def polynomial(self, x: Any, coefficients: tuple[float, ...]) -> Any:
        """Highest power first."""
        total = self(coefficients[0])
        for coefficient in coefficients[1:]:
            total = total * x + self(coefficient)
        return total


def _exp(number: _Numbers, x: Any) -> Any:
    """2**n * e**r, |r| <= ln(2) / 2; the power in two halves, so that it reaches infinity and the smallest numbers."""
    from tvm import tirx

    def power(n: Any) -> Any:
        return tirx.reinterpret(number.dtype, (n + number.integer(127)) << number.integer(23))

    def of_exponent(bounded: Any, n: Any) -> Any:
        real = n.astype(number.dtype)
        remainder = bounded - real * number(LN2_HIGH) - real * number(LN2_LOW)
        half = n >> number.integer(1)
        return number.let(
            remainder,
            lambda r: (number.polynomial(r, _EXP) * r * r + r + number(1.0)) * power(half) * power(n - half),
        )

    def of_bounded(bounded: Any) -> Any:
        rounded = tirx.call_llvm_pure_intrin(number.integers, "llvm.lrint", bounded * number(LOG2_E))
        return number.let(rounded, lambda n: of_exponent(bounded, n), number.integers)

    result = number.let(number.within(x, *_EXP_REACH), of_bounded)
    return tirx.Select(tirx.EQ(x, x), result, x)


def _erf(number: _Numbers, x: Any) -> Any:
    return _rational(number, x, _ERF_REACH, _ERF)


def _tanh(number: _Numbers, x: Any) -> Any:
    from tvm import tirx

    small = tirx.abs(x) < number(0.0004)
    return tirx.Select(small, x, _rational(number, x, _TANH_REACH, _TANH))


def _rational(number: _Numbers, x: Any, reach: float, coefficients: tuple[tuple[float, ...], tuple[float, ...]]) -> Any:
    """An odd function that tends to -1 and 1: `reach` is where it is as good as there."""
    from tvm import tirx

    above, below = coefficients

    def of_bounded(bounded: Any) -> Any:
        return number.let(
            bounded * bounded,
            lambda square: bounded * number.polynomial(square, above) / number.polynomial(square, below),
        )

    result = number.let(number.within(x, -reach, reach), of_bounded)
    return tirx.Select(tirx.EQ(x, x), number.within(result, -1.0, 1.0), x)
