"""Kernels that move or combine single elements: sums, quantization at the borders, changes of layout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deburr.targets.kernels import epilogue, layout
from deburr.targets.kernels.conv2d import Definition
from deburr.targets.kernels.workload import Add, ChangeLayout, Dequantize, Quantize, Requantize

if TYPE_CHECKING:
    Tensor = Any
    Expression = Any


def define(workload: Add | Quantize | Dequantize | ChangeLayout) -> Definition:
    """The one stage "output"."""
    match workload:
        case Add():
            return add(workload)
        case Quantize():
            return quantize(workload)
        case Dequantize():
            return dequantize(workload)
        case ChangeLayout():
            return change_layout(workload)


def add(workload: Add) -> Definition:
    """``output = a + b`` with fixed-point rescaling (u8) or a clamp (float32); the shape is the blocked one."""
    from tvm import te

    w = workload
    a, b = (te.placeholder(w.shape, w.dtype, name=name) for name in ("a", "b"))

    output = te.compute(w.shape, lambda *at: epilogue.total(a[at], b[at], w.add, w.float_epilogue), name="output")
    return Definition((a, b, output))


def quantize(workload: Quantize) -> Definition:
    """float32 NCHW -> u8 blocked, ties to even. NaN is no number that a u8 could hold: it gives `zero_point` or a bound."""
    from tvm import te, tirx

    w = workload
    data = te.placeholder((w.batch, w.channels, w.height, w.width), "float32", name="data")
    inverse_scale, how = tirx.const(w.inverse_scale, "float32"), Requantize(w.zero_point)
    shape = (w.batch, layout.blocks(w.channels, w.block), w.height, w.width, w.block)

    def element(n: Expression, i: Expression, y: Expression, x: Expression, c: Expression) -> Expression:
        scaled = data[n, i * w.block + c, y, x] * inverse_scale
        return _within(w.channels, w.block, (i, c), epilogue.quantize(scaled, how).astype("uint8"), "uint8")

    return Definition((data, te.compute(shape, element, name="output")))


def dequantize(workload: Dequantize) -> Definition:
    """u8 blocked -> float32 NCHW."""
    from tvm import te

    w = workload
    data = te.placeholder((w.batch, layout.blocks(w.channels, w.block), w.height, w.width, w.block), "uint8", name="data")

    def element(n: Expression, c: Expression, y: Expression, x: Expression) -> Expression:
        return epilogue.dequantize(data[n, c // w.block, y, x, c % w.block], w.zero_point, w.scale)

    return Definition((data, te.compute((w.batch, w.channels, w.height, w.width), element, name="output")))


def change_layout(workload: ChangeLayout) -> Definition:
    """Between plain and blocked, or between two block sizes; channels beyond the tensor's own are written as 0."""
    from tvm import te

    w = workload
    data = te.placeholder(_shape(w, w.from_block), w.dtype, name="data")

    def read(n: Expression, channel: Expression, y: Expression, x: Expression) -> Expression:
        if not w.from_block:
            return data[n, channel, y, x]
        return data[n, channel // w.from_block, y, x, channel % w.from_block]

    def plain(n: Expression, c: Expression, y: Expression, x: Expression) -> Expression:
        return read(n, c, y, x)

    def blocked(n: Expression, i: Expression, y: Expression, x: Expression, c: Expression) -> Expression:
        return _within(w.channels, w.to_block, (i, c), read(n, i * w.to_block + c, y, x), w.dtype)

    return Definition((data, te.compute(_shape(w, w.to_block), blocked if w.to_block else plain, name="output")))


def _shape(workload: ChangeLayout, block: int) -> tuple[int, ...]:
    w = workload
    if not block:
        return w.batch, w.channels, w.height, w.width
    return w.batch, layout.blocks(w.channels, block), w.height, w.width, block


def _within(channels: int, block: int, at: tuple[Expression, Expression], value: Expression, dtype: str) -> Expression:
    """`value` where the channel at (block, lane) exists, else 0."""
    from tvm import tirx

    if channels % block == 0:
        return value
    return tirx.if_then_else(at[0] * block + at[1] < channels, value, tirx.const(0, dtype))
