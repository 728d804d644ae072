"""How the work of a convolution or matrix product is shared out on a GPU, and the choice that needs no measurement."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from deburr.targets.kernels import layout
from deburr.targets.kernels.fragments import PIXELS
from deburr.targets.schedules.tile import largest_divisor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deburr.targets.kernels.workload import Conv2d, MatMul

WARPS = 4  # of a block of threads, at most
MOST_SUMS = 8  # fragments of a warp: 64 registers of a thread
PATCH_BYTES = 16 * 1024  # of shared memory for the data of a step; the sums take as much again
SUMS_BYTES = 32 * 1024
WANTED_BLOCKS = 160  # more than the multiprocessors of most GPUs: fewer leave some idle


@dataclass(frozen=True, slots=True)
class Cut:
    """What a block of threads computes: ``(warps * tile)`` blocks of channels, rows, fragments of a row.

    :param warps: along channels, rows and columns.
    :param tile: fragments of one warp, likewise; a fragment is a block of channels by some pixels of a row.
    :param chunk: blocks of input channels whose patch is in shared memory at a time.
    :param pixels: of a fragment.
    """

    warps: tuple[int, int, int]
    tile: tuple[int, int, int]
    chunk: int
    pixels: int = PIXELS

    @property
    def channels(self) -> int:
        return self.warps[0] * self.tile[0]

    @property
    def rows(self) -> int:
        return self.warps[1] * self.tile[1]

    @property
    def columns(self) -> int:
        return self.warps[2] * self.tile[2] * self.pixels


def rounded(size: int, step: int) -> int:
    """`size`, rounded up to whole steps."""
    return -(-size // step) * step


def of_convolution(workload: Conv2d) -> Cut:
    """For tensor cores."""
    w = workload
    outputs = layout.blocks(w.out_channels, w.out_block)
    sizes = (outputs, w.out_height, w.out_width)
    by_output = any(layout.first_input_blocks(w))
    best = min(_cuts(sizes, most_channels=1 if by_output else 2), key=lambda one: _cost(one, sizes, w.batch))
    rows = (best.rows - 1) * w.strides[0] + (w.kernel[0] - 1) * w.dilations[0] + 1
    columns = (best.columns - 1) * w.strides[1] + (w.kernel[1] - 1) * w.dilations[1] + 1
    spanned = layout.input_blocks_spanned(w)
    chunk = largest_divisor(spanned, max(1, PATCH_BYTES // (rows * columns * w.in_block * (2 if w.half else 1))))
    return Cut(best.warps, best.tile, chunk)


def of_product(workload: MatMul, parts: int) -> Cut:
    """For tensor cores: rows of the matrix are columns of an image with one row.

    :param parts: of the depth, each of which an instruction sums.
    """
    w = workload
    sizes = (layout.blocks(w.columns, w.block), 1, w.rows)
    best = min(_cuts(sizes, most_channels=2), key=lambda one: _cost(one, sizes, w.batches))
    return Cut(best.warps, best.tile, largest_divisor(parts, max(1, PATCH_BYTES // (best.columns * 16 * (2 if w.half else 1)))))


def _cuts(sizes: tuple[int, int, int], most_channels: int) -> Iterator[Cut]:
    """Those that are legal: channels are cut evenly, the sums fit into registers and shared memory."""
    outputs, rows, columns = sizes
    fragments = -(-columns // PIXELS)
    for warps in product((1, 2, 4), (1, 2, 4), (1, 2, 4)):
        if warps[0] * warps[1] * warps[2] > WARPS:
            continue
        for tile in product(range(1, most_channels + 1), (1, 2), (1, 2, 4)):
            cut = Cut(warps, tile, 1)
            sums = cut.channels * cut.rows * cut.columns * 32 * 4
            fits = tile[0] * tile[1] * tile[2] <= MOST_SUMS and sums <= SUMS_BYTES
            if fits and outputs % cut.channels == 0 and cut.rows < 2 * rows and cut.columns < 2 * fragments * PIXELS:
                yield cut


def _cost(cut: Cut, sizes: tuple[int, int, int], batch: int) -> tuple[float, int]:
    """Estimated time of a useful product: what rounding wastes, loads beside the products, and multiprocessors without work.

    A fragment of weights is 512 bytes from the second-level cache, one of pixels 128 from shared memory.
    """
    waste, blocks = 1.0, float(batch)
    for size, step in zip(sizes, (cut.channels, cut.rows, cut.columns), strict=True):
        size_in_steps = -(-size // step)
        waste, blocks = waste * size_in_steps * step / size, blocks * size_in_steps
    weights, pixels = cut.tile[0], cut.tile[1] * cut.tile[2]
    loads = (4 * weights + pixels) / (weights * pixels)
    warps = cut.warps[0] * cut.warps[1] * cut.warps[2]
    idle = max(1.0, WANTED_BLOCKS * WARPS / (blocks * warps))
    return waste * (1 + loads / 2) * (1 + 0.5 * (idle - 1)), -warps
