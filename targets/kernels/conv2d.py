"""Convolution in blocked layout: what is computed, for integers and float32, with its fused epilogue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deburr.targets.isa import is_gpu
from deburr.targets.kernels import chunks, epilogue, layout, planes
from deburr.targets.kernels.workload import Conv2d

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from deburr.targets.kernels.layout import WeightLayout

    Tensor = Any  # tvm.te.Tensor
    Expression = Any


@dataclass(frozen=True)
class Definition:
    """A computation: its arguments in calling order, the output last."""

    arguments: tuple[Tensor, ...]


def define(workload: Conv2d, isa: str, extent: tuple[int, int, int]) -> Definition:
    """Stages "pad" (only where needed), "accumulate", "output".

    :param extent: images, rows and columns that "accumulate" computes: the output's, rounded up to whole register tiles.
    """
    from tvm import te

    data = te.placeholder(layout.activation_shape(workload), workload.dtype, name="data")
    weights = layout.weight_layout(workload, isa)
    weight = te.placeholder(layout.weight_shape(workload, isa), weights.dtype, name="weight")
    in_planes, shift = weights.taps > 1, weights.data_shift if is_gpu(isa) else 0
    copied = planes.copy if in_planes else pad
    source = copied(data, workload, layout.of_memory(weights, isa), extent)
    sums = accumulate(source, weight, workload, (*extent, weights.pixels), shift, in_planes=in_planes)
    if weights.pixels == 1:
        return with_epilogue(workload, lambda *at: sums[at], (data, weight))
    p = weights.pixels
    return with_epilogue(workload, lambda n, o, y, x, c: sums[n, o, y, x // p, c // p, x % p, c % p], (data, weight))


def needed_size(extent: int, stride: int, kernel: int, dilation: int) -> int:
    """Padded rows (or columns) that `extent` outputs read."""
    return (extent - 1) * stride + (kernel - 1) * dilation + 1


def pad(data: Tensor, workload: Conv2d, weights: WeightLayout, extent: tuple[int, int, int]) -> Tensor:
    """The data with its border, as it is multiplied (in another type, shifted); the data itself where nothing is to be done."""
    from tvm import te, tirx

    w, dtype, shift = workload, weights.data_dtype, weights.data_shift
    batch, blocks, height, width, block = layout.activation_shape(w)
    rows = needed_size(extent[1], w.strides[0], w.kernel[0], w.dilations[0])
    columns = needed_size(extent[2], w.strides[1], layout.blocks(w.kernel[1], weights.taps) * weights.taps, w.dilations[1])
    top, left = w.pads[0], w.pads[1]
    inside = extent[0] <= batch and rows + top <= height and columns + left <= width and not top and not left
    if inside and dtype == w.dtype and not shift:
        return data
    zero = tirx.const(w.data_zero_point - shift if w.dtype == "uint8" else 0, dtype)

    def element(n: Expression, i: Expression, y: Expression, x: Expression, c: Expression) -> Expression:
        value = data[n, i, y - top, x - left, c]
        # u8 - 128 is s8 with the highest bit turned over: one instruction for a whole vector.
        value = (value ^ tirx.const(shift, w.dtype) if shift else value).astype(dtype)
        checks = [n < batch] * (extent[0] > batch) + [y >= top] * (top > 0) + [y < height + top] * (rows > height + top)
        checks += [x >= left] * (left > 0) + [x < width + left] * (columns > width + left)
        return tirx.if_then_else(tirx.all(*checks), value, zero) if checks else value

    return te.compute((extent[0], blocks, max(rows, 1), max(columns, 1), block), element, name="pad")


def signed(value: Expression, shift: int) -> Expression:
    """u8 -> s8, less `shift` (128): the highest bit turned over. Nothing happens to others."""
    from tvm import tirx

    return (value ^ tirx.const(shift, "uint8")).astype("int8") if shift else value


def accumulate(
    source: Tensor, weight: Tensor, workload: Conv2d, extent: tuple[int, ...], shift: int = 0, *, in_planes: bool = False
) -> Tensor:
    """The sums of products: int32 (exact) or float32, [n, o, y, x, c].

    :param extent: images, rows, columns and pixels of a square. With squares, [n, o, y, x / 2, c / 2, 2, 2]: the last two axes
        are a pixel and a channel.
    :param in_planes: whether the source is what `planes.copy` made: a group runs along its rows.
    """
    from tvm import te

    w, (outputs, spanned, height, width, parts, block, group) = workload, [int(size) for size in weight.shape]
    names = (("io", spanned), ("kh", height), ("kw", width), ("ii", parts), ("ig", group))
    dtype = "float16" if weight.dtype == "float16" else "float32" if w.dtype == "float32" else "int32"

    def product(at: Sequence[Expression], k: Sequence[Expression]) -> Expression:
        (n, o, y, x, c), (io, kh, kw, ii, ig) = at, k
        i, row, column = first_input_block(w, o) + io, y * w.strides[0] + kh * w.dilations[0], x * w.strides[1]
        if in_planes:
            value = source[n, i, row, 0, column + kw * group + ig + planes.left_border(w) - w.pads[1]]
        else:
            value = signed(source[n, i, row, column + kw * w.dilations[1], ii * group + ig], shift)
        return value.astype(dtype) * weight[o, io, kh, kw, ii, c, ig].astype(dtype)

    images, rows, columns, p = extent
    if dtype == "float16":
        return chunks.total((images, outputs, rows, columns, block), (spanned, height, width, parts), product)
    axes = [te.reduce_axis((0, size), name) for name, size in names]

    def element(*at: Expression) -> Expression:
        return te.sum(product(at, axes), axis=axes)

    if p == 1:
        return te.compute((images, outputs, rows, columns, block), element, name="accumulate")
    shape = (images, outputs, rows, columns // p, block // p, p, p)
    return te.compute(shape, lambda n, o, y, x, c, xi, ci: element(n, o, y, x * p + xi, c * p + ci), name="accumulate")


def first_input_block(workload: Conv2d, output_block: Expression) -> Expression:
    """`layout.first_input_blocks` as an expression in the output block: it has no table to look into."""
    from tvm import tirx

    w, firsts = workload, layout.first_input_blocks(workload)
    if not any(firsts):
        return 0
    first = output_block * w.out_block // (w.out_channels // w.groups) * (w.in_channels // w.groups) // w.in_block
    limit = layout.blocks(w.in_channels, w.in_block) - layout.input_blocks_spanned(w)
    return first if firsts[-1] < limit else tirx.min(first, tirx.const(limit, "int32"))


def with_epilogue(workload: Conv2d, sums: Callable[..., Expression], arguments: Sequence[Tensor]) -> Definition:
    """Adds bias, multiplier and residual arguments and the stage "output".

    :param sums: the accumulator at (n, o, y, x, c).
    """
    from tvm import te

    w, shape = workload, layout.output_shape(workload)
    per_channel = (shape[1], shape[4])
    integer = w.dtype == "uint8"
    bias = te.placeholder(per_channel, "int32" if integer else "float32", name="bias")
    multiplier = te.placeholder(per_channel, "float32", name="multiplier") if integer else None
    wants_residual = w.add is not None or (w.float_epilogue is not None and w.float_epilogue.residual)
    residual = te.placeholder(shape, w.dtype, name="residual") if wants_residual else None

    def element(n: Expression, o: Expression, y: Expression, x: Expression, c: Expression) -> Expression:
        value = sums(n, o, y, x, c) + bias[o, c]
        other = None if residual is None else residual[n, o, y, x, c]
        if multiplier is None:
            return value if w.float_epilogue is None else epilogue.float_epilogue(value, other, w.float_epilogue)
        return _integer_epilogue(w, value, multiplier[o, c], other)

    output = te.compute(shape, element, name="output")
    extras = [tensor for tensor in (bias, multiplier, residual) if tensor is not None]
    return Definition((*arguments, *extras, output))


def _integer_epilogue(workload: Conv2d, value: Expression, multiplier: Expression, residual: Expression | None) -> Expression:
    if workload.requantize is None:
        return value.astype("float32") * multiplier
    quantized = epilogue.requantize(value, multiplier, workload.requantize)
    if workload.add is not None and residual is not None:
        quantized = epilogue.fixed_point_add(quantized, residual.astype("int32"), workload.add)
    return quantized.astype("uint8")
