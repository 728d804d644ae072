"""Depthwise convolution in blocked layout: one vector of channels at a time, no sum across channels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deburr.targets.kernels import conv2d, layout

if TYPE_CHECKING:
    from deburr.targets.kernels.conv2d import Definition
    from deburr.targets.kernels.workload import Conv2d

    Expression = Any


def define(workload: Conv2d, isa: str, extent: tuple[int, int, int]) -> Definition:
    """Stages "pad" (only where needed), "accumulate", "output"; the weight is ``[C/b, kh, kw, b]``.

    :param extent: images, rows and columns that "accumulate" computes, as in `conv2d.define`.
    """
    from tvm import te

    w = workload
    weights = layout.depthwise_layout(w, isa)
    dtype = weights.dtype if w.dtype == "float32" else "int32"
    data = te.placeholder(layout.activation_shape(w), w.dtype, name="data")
    weight = te.placeholder(layout.depthwise_weight_shape(w), weights.dtype, name="weight")
    source = conv2d.pad(data, w, weights, extent)
    kh, kw = (te.reduce_axis((0, size), name) for size, name in zip(w.kernel, ("kh", "kw"), strict=True))

    def element(n: Expression, o: Expression, y: Expression, x: Expression, c: Expression) -> Expression:
        row, column = y * w.strides[0] + kh * w.dilations[0], x * w.strides[1] + kw * w.dilations[1]
        return te.sum(source[n, o, row, column, c].astype(dtype) * weight[o, kh, kw, c].astype(dtype), axis=[kh, kw])

    accumulator = te.compute((extent[0], layout.output_shape(w)[1], *extent[1:], w.out_block), element, name="accumulate")
    sums = "int32" if w.dtype == "uint8" else "float32"
    return conv2d.with_epilogue(w, lambda *at: accumulator[at].astype(sums), (data, weight))
