"""Convolution 3x3 by Winograd's minimal filtering: fewer multiplications in exchange for sums before and behind them.

Lavin and Gray 2016, "Fast Algorithms for Convolutional Neural Networks": a tile of m x m outputs is
``A^T [(G g G^T) * (B^T d B)] A``, with ``(m + 2)^2`` products in place of ``9 m^2``. The matrices are those of Toom and Cook
for chosen points (Blahut 2010, "Fast Algorithms for Signal Processing", chapter 5). Float32 only: integers would not be exact.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from deburr.targets.isa import ISAS, is_gpu
from deburr.targets.kernels import conv2d, layout

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from deburr.ir.types import Array
    from deburr.targets.kernels.conv2d import Definition
    from deburr.targets.kernels.workload import Conv2d

    Expression = Any
    Matrix = tuple[tuple[Fraction, ...], ...]

TAPS = 3
# With infinity as the last one. For m = 4 the usual 0, 1, -1, 2, -2 lose five times as many bits as these, which come near the
# plain sum: pairs whose product is 1 keep all the powers small (as Barabasz et al. 2020 found).
POINTS = {
    2: (Fraction(0), Fraction(1), Fraction(-1)),
    4: (Fraction(0), Fraction(2, 3), Fraction(-2, 3), Fraction(3, 2), Fraction(-3, 2)),
}

# Prices in multiply-accumulates, fitted to two cores with AVX-512: of a place in a tile for each channel in or out, beside its
# products; of a byte of weights, which come from memory. And how much better than the plain convolution it must be.
TRANSFORM, BYTE, WORTH_IT = 20, 4, 1.15


def tile_size(workload: Conv2d, isa: str) -> int:
    """m for tiles of m x m outputs; 0 where the plain convolution is as good, or is not 3x3 with stride 1 in float32.

    The same for any number of images: programs for several of them share their weights.
    """
    w = workload
    if (
        is_gpu(isa)
        or (w.half and ISAS[isa].half)
        or w.dtype != "float32"
        or w.kernel != (TAPS, TAPS)
        or w.groups > 1
        or w.strides != (1, 1)
        or w.dilations != (1, 1)
    ):
        return 0
    products = w.in_channels * w.out_channels
    plain = w.macs // w.batch + BYTE * 4 * products * TAPS * TAPS
    costs = {}
    for size in POINTS:
        tiles, places = grid(w, size), (size + TAPS - 1) ** 2
        work = products + TRANSFORM * (w.in_channels + w.out_channels)
        costs[size] = tiles.in_height * tiles.in_width * places * work + BYTE * 4 * products * places
    best = min(costs, key=lambda size: costs[size])
    return best if costs[best] * WORTH_IT < plain else 0


def grid(workload: Conv2d, size: int) -> Conv2d:
    """The products as a convolution 1x1 over tiles of `size` x `size` outputs in place of pixels."""
    rows, columns = (-(-extent // size) for extent in (workload.out_height, workload.out_width))
    return replace(workload, in_height=rows, in_width=columns, kernel=(1, 1), pads=(0, 0, 0, 0))


@cache
def matrices(size: int) -> tuple[Matrix, Matrix, Matrix]:
    """``A^T`` [m, m + 2], ``G`` [m + 2, 3] and ``B^T`` [m + 2, m + 2] for m = `size`, 2 or 4."""
    points = POINTS[size]
    others = [[other for other in points if other != point] for point in points]
    scales = [_evaluate(_from_roots(roots), point) for roots, point in zip(others, points, strict=True)]
    powers = [[point**power for power in range(max(size, TAPS))] for point in points]
    output = [[row[i] for row in powers] + [Fraction(i == size - 1)] for i in range(size)]
    weight = [[row[k] / scale for k in range(TAPS)] for row, scale in zip(powers, scales, strict=True)]
    weight += [[Fraction(k == TAPS - 1) for k in range(TAPS)]]
    data = [[*_from_roots(roots), Fraction(0)] for roots in others] + [_from_roots(points)]
    return _frozen(output), _frozen(weight), _frozen(data)


def _from_roots(roots: Sequence[Fraction]) -> list[Fraction]:
    """Coefficients of ``(x - r0) (x - r1) ...``, the constant first."""
    found = [Fraction(1)]
    for root in roots:
        found = [high - root * low for high, low in zip([Fraction(0), *found], [*found, Fraction(0)], strict=True)]
    return found


def _evaluate(coefficients: Sequence[Fraction], at: Fraction) -> Fraction:
    return sum((coefficient * at**power for power, coefficient in enumerate(coefficients)), Fraction(0))


def _frozen(rows: Sequence[Sequence[Fraction]]) -> Matrix:
    return tuple(tuple(row) for row in rows)


def transform_weight(weight: Array, size: int) -> Array:
    """``[O, I, 3, 3] -> [O, I, m + 2, m + 2]``: ``G g G^T``, computed in float64."""
    g = np.array([[float(entry) for entry in row] for row in matrices(size)[1]])
    found: Array = np.einsum("ia,ocab,jb->ocij", g, weight.astype(np.float64), g).astype(np.float32)
    return found


def weight_shape(workload: Conv2d, size: int) -> tuple[int, ...]:
    """Of the packed weights: ``[O/ob, i, j, I/ib, ib, ob, 1]``; the last axis is an instruction's group."""
    w, edge = workload, size + TAPS - 1
    outputs, inputs = layout.blocks(w.out_channels, w.out_block), layout.blocks(w.in_channels, w.in_block)
    return outputs, edge, edge, inputs, w.in_block, w.out_block, 1


def pack_weight(workload: Conv2d, weight: Array, size: int) -> Array:
    """``[O, I, 3, 3]`` as the kernel takes it."""
    outputs, edge, _, inputs, in_block, out_block, _ = weight_shape(workload, size)
    wide = np.zeros((outputs * out_block, inputs * in_block, edge, edge), np.float32)
    wide[: workload.out_channels, : workload.in_channels] = transform_weight(weight, size)
    split = wide.reshape(outputs, out_block, inputs, in_block, edge, edge)
    return np.ascontiguousarray(split.transpose(0, 4, 5, 2, 3, 1)[..., None])


def define(workload: Conv2d, size: int, extent: tuple[int, int, int]) -> Definition:
    """Stages "pad" (only where needed), "data_rows", "data_tiles", "accumulate", "products", "output_rows", "output".

    :param extent: images, rows and columns of tiles that are computed.
    """
    from tvm import te

    w, edge, (images, rows, columns) = workload, size + TAPS - 1, extent
    outputs, _, _, inputs, in_block, out_block, _ = weight_shape(w, size)
    at_output, _, at_data = matrices(size)
    data = te.placeholder(layout.activation_shape(w), "float32", name="data")
    weight = te.placeholder(weight_shape(w, size), "float32", name="weight")
    plain = layout.WeightLayout(1, "float32", "float32")
    source = conv2d.pad(data, w, plain, (images, rows * size, columns * size))
    half = te.compute(
        (images, inputs, rows, columns, edge, edge, in_block),
        lambda n, b, y, x, i, v, c: _row(at_data, i, lambda u: source[n, b, y * size + u, x * size + v, c]),
        name="data_rows",
    )
    tiles = te.compute(
        (images, inputs, rows, columns, edge, edge, in_block),
        lambda n, b, y, x, i, j, c: _row(at_data, j, lambda v: half[n, b, y, x, i, v, c]),
        name="data_tiles",
    )
    b, k, g = (te.reduce_axis((0, count), name) for name, count in (("io", inputs), ("ii", in_block), ("ig", 1)))
    sums = te.compute(
        (edge, edge, images, outputs, rows, columns, out_block),
        lambda i, j, n, o, y, x, c: te.sum(tiles[n, b, y, x, i, j, k + g] * weight[o, i, j, b, k, c, g], axis=[b, k, g]),
        name="accumulate",
    )
    shape = (images, outputs, rows, columns, edge, edge, out_block)
    products = te.compute(shape, lambda n, o, y, x, i, j, c: sums[i, j, n, o, y, x, c], name="products")
    back = te.compute(
        (images, outputs, rows, columns, size, edge, out_block),
        lambda n, o, y, x, p, j, c: _row(at_output, p, lambda i: products[n, o, y, x, i, j, c]),
        name="output_rows",
    )

    def element(n: Expression, o: Expression, y: Expression, x: Expression, c: Expression) -> Expression:
        return _row(at_output, x % size, lambda j: back[n, o, y // size, x // size, y % size, j, c])

    return conv2d.with_epilogue(w, element, (data, weight))


def _row(matrix: Matrix, index: Expression, term: Callable[[int], Expression]) -> Expression:
    """Row `index` of a matrix times a vector: a choice among sums that unrolling makes one of them."""
    from tvm import tirx

    sums = [_sum(row, term) for row in matrix]
    chosen = sums[-1]
    for number in reversed(range(len(sums) - 1)):
        chosen = tirx.Select(index == number, sums[number], chosen)
    return chosen


def _sum(row: Sequence[Fraction], term: Callable[[int], Expression]) -> Expression:
    from tvm import tirx

    total: Expression = None
    for place, factor in enumerate(row):
        if factor:
            value = term(place) if factor == 1 else term(place) * tirx.const(float(factor), "float32")
            total = value if total is None else total + value
    return total
