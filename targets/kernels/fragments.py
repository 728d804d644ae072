"""Convolutions and matrix products as tensor cores compute them: what is computed, an implicit GEMM.

A fragment of sums is one block of output channels by some pixels of a row. Pixels are gathered from a patch of the image that
all taps of the window share, so no matrix of windows is ever written. What follows the sums is every other template's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from deburr.targets.kernels import conv2d, layout, matmul

if TYPE_CHECKING:
    from deburr.targets.kernels.conv2d import Definition
    from deburr.targets.kernels.layout import WeightLayout
    from deburr.targets.kernels.workload import Conv2d, MatMul

    Tensor = Any  # tvm.te.Tensor
    Expression = Any

PIXELS = 8  # of a fragment


def conv2d_fragments(workload: Conv2d, isa: str, extent: tuple[int, int, int]) -> Definition:
    """Stages "pad" (only where needed), "pixels", "accumulate", "sums", "output".

    :param extent: images, rows and columns that "accumulate" computes; the columns are whole fragments.
    """
    from tvm import te

    w, weights = workload, layout.weight_layout(workload, isa)
    data = te.placeholder(layout.activation_shape(w), w.dtype, name="data")
    weight = te.placeholder(layout.weight_shape(w, isa), weights.dtype, name="weight")
    source = conv2d.pad(data, w, layout.of_memory(weights, isa), extent)
    outputs, spanned, height, width, parts, block, group = (int(size) for size in weight.shape)
    by_output = any(layout.first_input_blocks(w))  # the patch then depends on the block of output channels
    images, rows, columns = extent

    def pixel(n: Expression, o: Expression, y: Expression, *at: Expression) -> Expression:
        (io, kh, kw, k, eight, one, channel), first = at, conv2d.first_input_block(w, o) if by_output else 0
        row = y * w.strides[0] + kh * w.dilations[0]
        column = (eight * PIXELS + one) * w.strides[1] + kw * w.dilations[1] * weights.taps
        if weights.taps > 1:  # the group is of several pixels
            return source[n, first + io, row, column + channel // w.in_block, channel % w.in_block]
        return conv2d.signed(source[n, first + io, row, column, k * group + channel], weights.data_shift)

    shape = (images, outputs if by_output else 1, rows, spanned, height, width, parts, columns // PIXELS, PIXELS, group)
    pixels = te.compute(shape, pixel, name="pixels")
    names = (("io", spanned), ("kh", height), ("kw", width), ("ii", parts), ("ig", group))
    sums_dtype = "float32" if w.half else "int32"
    io, kh, kw, ii, ig = axes = [te.reduce_axis((0, size), name) for name, size in names]

    def total(n: Expression, o: Expression, y: Expression, *at: Expression) -> Expression:
        eight, c, one = at
        value = pixels[n, o if by_output else 0, y, io, kh, kw, ii, eight, one, ig]
        return te.sum(weight[o, io, kh, kw, ii, c, ig].astype(sums_dtype) * value.astype(sums_dtype), axis=axes)

    accumulator = te.compute((images, outputs, rows, columns // PIXELS, block, PIXELS), total, name="accumulate")
    sums = _in_pixels((images, outputs, rows, columns, block), accumulator)
    return conv2d.with_epilogue(w, lambda *at: sums[at], (data, weight))


def matmul_fragments(workload: MatMul, isa: str, rows: int) -> Definition:
    """Stages "pad", "pack", "row_sums", "column_sums" as `matmul.define`, then as `conv2d_fragments`: rows are pixels.

    :param rows: that "accumulate" computes, whole fragments.
    """
    from tvm import te

    def products(
        source: Callable[..., Expression], packed: matmul.Packed, sizes: tuple[int, int, int, int], weights: WeightLayout
    ) -> Callable[..., Expression]:
        w, (blocks, parts, block, group) = workload, sizes
        sums_dtype = "float32" if w.half else "int32"

        def pixel(b: Expression, k: Expression, eight: Expression, one: Expression, g: Expression) -> Expression:
            return conv2d.signed(source(b, eight * PIXELS + one, k * group + g), weights.data_shift)

        pixels = te.compute((w.batches, parts, rows // PIXELS, PIXELS, group), pixel, name="pixels")
        k, g = te.reduce_axis((0, parts), "k"), te.reduce_axis((0, group), "g")

        def total(b: Expression, o: Expression, _: Expression, *at: Expression) -> Expression:
            eight, c, one = at
            value = pixels[b, k, eight, one, g].astype(sums_dtype)
            return te.sum(packed.at(b, o, k, c, g).astype(sums_dtype) * value, axis=[k, g])

        accumulator = te.compute((w.batches, blocks, 1, rows // PIXELS, block, PIXELS), total, name="accumulate")
        sums = _in_pixels((w.batches, blocks, 1, rows, block), accumulator)
        return lambda b, o, m, c: sums[b, o, 0, m, c]

    return matmul.define_with(workload, isa, rows, products)


def _in_pixels(shape: tuple[int, ...], accumulator: Tensor) -> Tensor:
    """The fragments' sums, a pixel's channels next to each other."""
    from tvm import te

    return te.compute(shape, lambda n, o, y, x, c: accumulator[n, o, y, x // PIXELS, c, x % PIXELS], name="sums")
