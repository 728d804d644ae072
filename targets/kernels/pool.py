"""Pooling in blocked layout: maximum, average, and global pooling as a window as large as the image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deburr.targets.kernels import epilogue, layout
from deburr.targets.kernels.conv2d import Definition

if TYPE_CHECKING:
    from deburr.targets.kernels.workload import Pool2d

    Tensor = Any
    Expression = Any


def define(workload: Pool2d) -> Definition:
    """Stages "accumulate" and "output"; the border is skipped, never read."""
    from tvm import te

    w = workload
    blocks = layout.blocks(w.channels, w.block)
    data = te.placeholder((w.batch, blocks, w.in_height, w.in_width, w.block), w.dtype, name="data")
    shape = (w.batch, blocks, w.out_height, w.out_width, w.block)
    accumulator = te.compute(shape, _maximum(w, data) if w.kind == "max" else _sum(w, data), name="accumulate")
    output = te.compute(shape, lambda *at: _finish(w, accumulator[at]), name="output")
    return Definition((data, output))


def _window(workload: Pool2d, data: Tensor, outside: Expression) -> tuple[list[Any], Any]:
    """Reduction axes, and a function of the output's indices: the element under the window, `outside` beyond the image."""
    from tvm import te, tirx

    w, (top, left, bottom, right) = workload, workload.pads
    kh, kw = te.reduce_axis((0, w.kernel[0]), "kh"), te.reduce_axis((0, w.kernel[1]), "kw")

    def element(n: Expression, o: Expression, y: Expression, x: Expression, c: Expression) -> Expression:
        row, column = y * w.strides[0] + kh - top, x * w.strides[1] + kw - left
        checks = [row >= 0] * (top > 0) + [row < w.in_height] * (bottom > 0)
        checks += [column >= 0] * (left > 0) + [column < w.in_width] * (right > 0)
        value = data[n, o, row, column, c]
        return tirx.if_then_else(tirx.all(*checks), value, outside) if checks else value

    return [kh, kw], element


def _maximum(workload: Pool2d, data: Tensor) -> Any:
    from tvm import te, tirx

    axes, element = _window(workload, data, tirx.min_value(workload.dtype))
    return lambda *at: te.max(element(*at), axis=axes)


def _sum(workload: Pool2d, data: Tensor) -> Any:
    from tvm import te, tirx

    w = workload
    dtype = "int32" if w.dtype == "uint8" else "float32"
    zero_point = w.data_zero_point if w.dtype == "uint8" else 0
    axes, element = _window(w, data, tirx.const(zero_point, w.dtype))
    return lambda *at: te.sum(element(*at).astype(dtype), axis=axes)


def _finish(workload: Pool2d, value: Expression) -> Expression:
    from tvm import tirx

    w = workload
    if w.kind == "max":
        return value
    multiplier = tirx.const(w.multiplier, "float32")
    if w.dtype == "float32":
        return value * multiplier
    centred = value - w.data_zero_point * w.kernel[0] * w.kernel[1]
    if w.requantize is None:
        return centred.astype("float32") * multiplier
    return epilogue.requantize(centred, multiplier, w.requantize).astype("uint8")
