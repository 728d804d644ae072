"""exp, erf and tanh of float32 as polynomials, for whole vectors: LLVM calls the C library for each element.

Errors are within a few units of the last place (tests/targets/test_transcendental.py holds the bounds), infinities and NaN as
C has them. Only additions, multiplications and one division: every target gives nearly the same bits, and none needs a libm.
"""

from __future__ import annotations

from functools import cache
from typing import Any

LN2_HIGH, LN2_LOW, LOG2_E = 0.693359375, -2.12194440e-4, 1.44269504088896341
_EXP = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)  # Cephes
_EXP_REACH = (-104.0, 89.0)  # beyond, the result is 0 or infinite
# Rational functions of Eigen: numerator (times x) and denominator in x².
_ERF = (
    (-2.72614225801306e-10, 2.77068142495902e-08, -2.10102402082508e-06, -5.69250639462346e-05, -7.34990630326855e-04,
     -2.95459980854025e-03, -1.60960333262415e-02),
    (-1.45660718464996e-05, -2.13374055278905e-04, -1.68282697438203e-03, -7.37332916720468e-03, -1.42647390514189e-02),
)  # fmt: skip
_TANH = (
    (-2.76076847742355e-16, 2.00018790482477e-13, -8.60467152213735e-11, 5.12229709037114e-08, 1.48572235717979e-05,
     6.37261928875436e-04, 4.89352455891786e-03),
    (1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03),
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
    return _rational(number, x, 4.0, _ERF)


def _tanh(number: _Numbers, x: Any) -> Any:
    from tvm import tirx

    small = tirx.abs(x) < number(0.0004)
    return tirx.Select(small, x, _rational(number, x, 9.0, _TANH))


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
