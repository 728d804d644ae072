"""Matrix products on row-major tensors: what is computed, for integers and float32, with the fused epilogue.

As everywhere, vectors run along the columns of `b`, which are packed for them: constants beforehand, activations on the way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deburr.targets.isa import ISAS, is_gpu
from deburr.targets.kernels import chunks, conv2d, epilogue, layout
from deburr.targets.kernels.conv2d import Definition
from deburr.targets.kernels.workload import Conv2d, MatMul, Operand

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from deburr.targets.kernels.layout import WeightLayout

    Tensor = Any  # tvm.te.Tensor
    Expression = Any
    At = Callable[..., Expression]

REGISTER = 16  # bytes of activations that aarch64's instructions take at once


def convolution(workload: MatMul, isa: str) -> Conv2d:
    """The 1x1 convolution with the same inner loop: all of a row is one block of channels, padded as instructions want it.

    On a GPU it is blocks as those of images: what a block of threads has in its memory at a time is a few of them.
    """
    w = workload
    if is_gpu(isa):
        block = ISAS[isa].block
        return Conv2d(
            1, -(-w.depth // block) * block, w.rows, 1, w.columns, (1, 1), dtype=w.dtype, in_block=block, out_block=w.block,
            data_zero_point=w.a_zero_point, half=w.half,
        )  # fmt: skip
    step = REGISTER if ISAS[isa].architecture == "aarch64" else 4
    if w.half and w.depth > chunks.LONGEST:  # float16 is copied anyway: whole chunks cost nothing
        step = chunks.LONGEST
    depth = -(-w.depth // step) * step
    return Conv2d(
        1, depth, w.rows, 1, w.columns, (1, 1), dtype=w.dtype, in_block=depth, out_block=w.block,
        data_zero_point=w.a_zero_point, half=w.half,
    )  # fmt: skip


def define(workload: MatMul, isa: str, rows: int) -> Definition:
    """Stages "pad" and "pack" (only where needed), "row_sums", "column_sums" (zero points), "accumulate", "output".

    :param rows: that "accumulate" computes: the output's, rounded up to whole register tiles.
    """
    from tvm import te

    def products(source: Any, packed: Packed, sizes: tuple[int, int, int, int], weights: WeightLayout) -> At:
        blocks, parts, block, group = sizes
        in_a_row = is_gpu(isa)  # its threads share out the pixels of a row
        shift = weights.data_shift if in_a_row else 0
        in_half = weights.dtype == "float16"
        total = "float16" if in_half else "float32" if workload.dtype == "float32" else "int32"

        def product(at: Sequence[Expression], axes: Sequence[Expression]) -> Expression:
            (b, o, y, x, c), (k, g) = at, axes
            value = conv2d.signed(source(b, x if in_a_row else y, k * group + g), shift)
            return value.astype(total) * packed.at(b, o, k, c, g).astype(total)

        shape = (workload.batches, blocks, *((1, rows) if in_a_row else (rows, 1)), block)
        if in_half:
            sums = chunks.total(shape, (parts,), product)
        else:
            axes = [te.reduce_axis((0, parts), "k"), te.reduce_axis((0, group), "g")]
            sums = te.compute(shape, lambda *at: te.sum(product(at, axes), axis=axes), name="accumulate")
        return lambda b, o, m, c: sums[(b, o, *((0, m) if in_a_row else (m, 0)), c)]

    return define_with(workload, isa, rows, products)


def define_with(workload: MatMul, isa: str, rows: int, products: Callable[..., At]) -> Definition:
    """As `define`, with sums of products that another template makes.

    :param products: of the data as a function of (batch, row, k), the packed columns, (blocks, parts, block, group) and the
        layout of the weights; gives the sums as a function of (batch, block of columns, row, column of the block).
    """
    from tvm import te

    w, like = workload, convolution(workload, isa)
    weights, shape = layout.weight_layout(like, isa), layout.weight_shape(like, isa)
    blocks, parts, block, group = shape[0], shape[1] * shape[4], *shape[5:]
    data = te.placeholder(w.a.shape, w.dtype, name="data")
    source = _padded(data, w, layout.of_memory(weights, isa), rows, parts * group)
    if w.b is None:
        weight = te.placeholder(shape, weights.dtype, name="weight")
        packed = Packed(weight, lambda _, o, k, c, g: weight[(o, *_place(shape, k), c, g)])
    else:
        weight = te.placeholder(w.b.shape, w.dtype, name="weight")
        packed = _pack(weight, w, weights, (blocks, parts, block, group))
    sizes = (blocks, parts, block, group)
    sums = products(source, packed, sizes, weights)
    zero_points = None if w.b is None or w.dtype == "float32" else _ZeroPoints(w, weights, data, packed, sizes)
    return _with_epilogue(w, sums, zero_points, (data, weight), (blocks, block))


def _place(shape: tuple[int, ...], k: Expression) -> tuple[Expression, ...]:
    """Where a packed weight of this shape has the k-th group: (block, 0, 0, part)."""
    return (0, 0, 0, k) if shape[1] == 1 else (k // shape[4], 0, 0, k % shape[4])


@dataclass(frozen=True)
class Packed:
    """The packed columns, and how (batch, block, k / group, column, k % group) finds them."""

    tensor: Tensor
    at: Any


def read(tensor: Tensor, operand: Operand, workload: MatMul, at: tuple[Expression, Expression, Expression]) -> Expression:
    """The element at a batch (counted through), row and column."""
    sizes, (rest, row, column) = workload.batch, at
    parts: list[Expression] = []
    for axis in range(len(sizes) - 1, 0, -1):
        parts.append(rest % sizes[axis])
        rest = rest // sizes[axis]
    logical = [*([rest] if sizes else []), *reversed(parts), row, column]
    return tensor[tuple(0 if axis < 0 else logical[axis] for axis in operand.order)]


def _padded(data: Tensor, workload: MatMul, weights: WeightLayout, rows: int, depth: int) -> Any:
    """`data` at (batch, row, k): copied into whole tiles and the multiplied type where it does not lie so already."""
    from tvm import te, tirx

    w, shift = workload, weights.data_shift
    last = len(w.a.shape) - 1
    whole = rows == w.rows and depth == w.depth and w.a.order[last] == len(w.batch) + 1
    if whole and weights.data_dtype == w.dtype and not shift:
        return lambda b, m, k: read(data, w.a, w, (b, m, k))
    zero = tirx.const(0, weights.data_dtype)

    def element(b: Expression, m: Expression, k: Expression) -> Expression:
        value = read(data, w.a, w, (b, m, k))
        value = (value ^ tirx.const(shift, w.dtype) if shift else value).astype(weights.data_dtype)
        checks = [m < w.rows] * (rows > w.rows) + [k < w.depth] * (depth > w.depth)
        return tirx.if_then_else(tirx.all(*checks), value, zero) if checks else value

    padded = te.compute((w.batches, rows, depth), element, name="pad")
    return lambda b, m, k: padded[b, m, k]


def _pack(weight: Tensor, workload: MatMul, weights: WeightLayout, sizes: tuple[int, int, int, int]) -> Packed:
    """An activation `b` as instructions want it; u8 becomes s8 by taking 128 off. What lies beyond its edge counts nothing."""
    from tvm import te, tirx

    w, (blocks, parts, block, group) = workload, sizes
    assert w.b is not None
    kept = [axis for axis in range(len(w.batch)) if axis in w.b.order]
    repeated = len(kept) < len(w.batch)
    batches = 1 if not kept else w.batches
    operand = w.b

    def element(b: Expression, o: Expression, k: Expression, c: Expression, g: Expression) -> Expression:
        depth, column = k * group + g, o * block + c
        value = read(weight, operand, w, (b, depth, column))
        if w.dtype == "uint8":
            value = (value ^ tirx.const(128, "uint8")).astype("int8").astype(weights.dtype)
        checks = [depth < w.depth] * (parts * group > w.depth) + [column < w.columns] * (blocks * block > w.columns)
        return tirx.if_then_else(tirx.all(*checks), value, tirx.const(0, weights.dtype)) if checks else value

    packed = te.compute((batches, blocks, parts, block, group), element, name="pack")
    return Packed(packed, lambda b, *at: packed[(0 if repeated and batches == 1 else b, *at)])


class _ZeroPoints:
    """``sum (a - za) (b - zb) = sum a b - za sum b - zb sum a + K za zb``: the last three terms.

    `b` stands for what was packed, u8 - 128; where instructions take a shifted `a`, its zero point is shifted, too.
    """

    def __init__(
        self, workload: MatMul, weights: WeightLayout, data: Tensor, packed: Packed, sizes: tuple[int, int, int, int]
    ) -> None:
        from tvm import te

        w, (blocks, parts, block, group) = workload, sizes
        self._a, self._b, self._depth = w.a_zero_point - weights.data_shift, w.b_zero_point - 128, w.depth
        k, g, j = te.reduce_axis((0, parts), "k"), te.reduce_axis((0, group), "g"), te.reduce_axis((0, w.depth), "j")
        self._columns = self._rows = None
        if self._a:
            batches = int(packed.tensor.shape[0])
            self._columns = te.compute(
                (batches, blocks, block), lambda b, o, c: te.sum(packed.at(b, o, k, c, g).astype("int32"), axis=[k, g]),
                name="column_sums",
            )  # fmt: skip
            self._one = batches == 1
        if self._b:
            shift = weights.data_shift
            self._rows = te.compute(
                (w.batches, w.rows),
                lambda b, m: te.sum(read(data, w.a, w, (b, m, j)).astype("int32") - shift, axis=[j]), name="row_sums",
            )  # fmt: skip

    def at(self, b: Expression, o: Expression, m: Expression, c: Expression) -> Expression:
        """What is to be added to the sum of products."""
        value: Expression = self._depth * self._a * self._b
        if self._columns is not None:
            value = value - self._columns[0 if self._one else b, o, c] * self._a
        return value if self._rows is None else value - self._rows[b, m] * self._b


def _with_epilogue(
    workload: MatMul, sums: At, zero_points: _ZeroPoints | None, arguments: Sequence[Tensor], columns: tuple[int, int]
) -> Definition:
    from tvm import te

    w, integer, block = workload, workload.dtype == "uint8", columns[1]
    bias = te.placeholder(columns, "int32" if integer else "float32", name="bias") if w.b is None else None
    multiplier = te.placeholder(columns, "float32", name="multiplier") if integer else None
    wants_residual = w.add is not None or (w.float_epilogue is not None and w.float_epilogue.residual)
    residual = te.placeholder(w.out.shape, w.out_dtype, name="residual") if wants_residual else None

    def element(*at: Expression) -> Expression:
        b, m, n = _logical(w, at)
        o, c = n // block, n % block
        value = sums(b, o, m, c)
        if zero_points is not None:
            value = value + zero_points.at(b, o, m, c)
        if not integer and w.scale != 1:
            value = value * _constant(w.scale)
        value = value if bias is None else value + bias[o, c]
        return _finish(w, value, None if multiplier is None else multiplier[o, c], None if residual is None else residual[at])

    output = te.compute(w.out.shape, element, name="output")
    extras = [tensor for tensor in (bias, multiplier, residual) if tensor is not None]
    return Definition((*arguments, *extras, output))


def _finish(workload: MatMul, value: Expression, multiplier: Expression | None, residual: Expression | None) -> Expression:
    w = workload
    if w.requantize is not None:
        quantized = epilogue.requantize(value, multiplier, w.requantize)
        if w.add is not None and residual is not None:
            quantized = epilogue.fixed_point_add(quantized, residual.astype("int32"), w.add)
        return quantized.astype("uint8")
    real = value if multiplier is None else value.astype("float32") * multiplier
    return real if w.float_epilogue is None else epilogue.float_epilogue(real, residual, w.float_epilogue)


def _constant(number: float) -> Expression:
    """A float32."""
    from tvm import tirx

    return tirx.const(number, "float32")


def _logical(workload: MatMul, at: Sequence[Expression]) -> tuple[Expression, Expression, Expression]:
    """Batch (counted through), row and column of an element of the output."""
    logical: dict[int, Expression] = {axis: index for axis, index in zip(workload.out.order, at, strict=True) if axis >= 0}
    batch: Expression = 0
    for axis, size in enumerate(workload.batch):
        batch = batch * size + logical[axis] if axis else logical[axis]
    rank = len(workload.batch)
    return batch, logical.get(rank, 0), logical.get(rank + 1, 0)
