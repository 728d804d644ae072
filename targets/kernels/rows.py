"""Softmax, normalizations and reductions along the rows of a matrix: what is computed.

A sum over a row is a vector of sums, then their sum, then what is left over at the end: float32 sums have no order of their own
that a compiler may change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deburr.targets.kernels.conv2d import Definition

if TYPE_CHECKING:
    from collections.abc import Callable

    from deburr.targets.kernels.workload import Rows

    Tensor = Any  # tvm.te.Tensor
    Expression = Any


@dataclass(frozen=True, slots=True)
class _Kind:
    """How elements are put together: TE's reducer, and the same for two."""

    reducer: Any
    pair: Callable[[Expression, Expression], Expression]


def define(workload: Rows) -> Definition:
    """Stages ``*_lanes``, ``*_row``, ``*_rest`` of each reduction, "exponential", "output"."""
    from tvm import te

    w = workload
    data = te.placeholder((w.rows, w.size), "float32", name="data")
    if w.kind == "softmax":
        return _softmax(w, data)
    if w.kind == "normalize":
        return _normalize(w, data)
    total = _reduce(w, "sum" if w.kind == "mean" else w.kind, "total", lambda r, i: data[r, i])
    factor = 1 / w.size if w.kind == "mean" else 1
    output = te.compute((w.rows,), lambda r: total(r) * _constant(factor) if factor != 1 else total(r), name="output")
    return Definition((data, output))


def _softmax(workload: Rows, data: Tensor) -> Definition:
    from tvm import te, tirx

    w = workload
    largest = _reduce(w, "max", "largest", lambda r, i: data[r, i])
    top = te.compute((w.rows,), largest, name="top")
    exponential = te.compute((w.rows, w.size), lambda r, i: tirx.exp(data[r, i] - top[r]), name="exponential")
    total = _reduce(w, "sum", "total", lambda r, i: exponential[r, i])
    factor = te.compute((w.rows,), lambda r: _constant(1.0) / total(r), name="factor")
    return Definition((data, te.compute((w.rows, w.size), lambda r, i: exponential[r, i] * factor[r], name="output")))


def _normalize(workload: Rows, data: Tensor) -> Definition:
    """The variance from differences to the mean: that of squares loses all digits where the mean is large."""
    from tvm import te, tirx

    w = workload
    scale, bias = (te.placeholder((w.channels,), "float32", name=name) for name in ("scale", "bias"))
    count = _constant(1 / w.size)
    total = _reduce(w, "sum", "total", lambda r, i: data[r, i])
    mean = te.compute((w.rows,), lambda r: total(r) * count, name="mean")
    squares = _reduce(w, "sum", "squares", lambda r, i: (data[r, i] - mean[r]) * (data[r, i] - mean[r]))
    factor = te.compute(
        (w.rows,), lambda r: _constant(1.0) / tirx.sqrt(squares(r) * count + _constant(w.epsilon)), name="factor"
    )
    parts = w.size // w.inner

    def element(r: Expression, i: Expression) -> Expression:
        channel = (r * parts + i // w.inner) % w.channels
        if w.inner == 1 and w.channels == w.size:
            channel = i
        elif w.inner == w.size:
            channel = r % w.channels
        return (data[r, i] - mean[r]) * factor[r] * scale[channel] + bias[channel]

    return Definition((data, scale, bias, te.compute((w.rows, w.size), element, name="output")))


def _reduce(
    workload: Rows, kind: str, name: str, element: Callable[[Expression, Expression], Expression]
) -> Callable[[Expression], Expression]:
    """A function of the row: all of its elements put together."""
    from tvm import te

    w, how = workload, _kind(kind)
    vectors, rest = divmod(w.size, w.lanes)
    parts: list[Tensor] = []
    if vectors:
        j, lane = te.reduce_axis((0, vectors), "j"), te.reduce_axis((0, w.lanes), "lane")
        lanes = te.compute(
            (w.rows, w.lanes), lambda r, i: how.reducer(element(r, j * w.lanes + i), axis=[j]), name=f"{name}_lanes"
        )
        parts.append(te.compute((w.rows,), lambda r: how.reducer(lanes[r, lane], axis=[lane]), name=f"{name}_row"))
    if rest:
        k = te.reduce_axis((0, rest), "k")
        parts.append(
            te.compute((w.rows,), lambda r: how.reducer(element(r, vectors * w.lanes + k), axis=[k]), name=f"{name}_rest")
        )
    return lambda r: parts[0][r] if len(parts) == 1 else how.pair(parts[0][r], parts[1][r])


def _kind(name: str) -> _Kind:
    from tvm import te, tirx

    kinds = {"sum": _Kind(te.sum, lambda a, b: a + b), "max": _Kind(te.max, tirx.max), "min": _Kind(te.min, tirx.min)}
    return kinds[name]


def _constant(number: float) -> Expression:
    from tvm import tirx

    return tirx.const(number, "float32")
