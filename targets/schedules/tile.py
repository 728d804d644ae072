"""Tile sizes of a convolution, and the analytic choice that stands in for tuning."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

from deburr.targets.isa import ISAS
from deburr.targets.kernels import layout

if TYPE_CHECKING:
    from deburr.targets.kernels.workload import Conv2d, MatMul


@dataclass(frozen=True, slots=True)
class ConvSchedule:
    """How a convolution is cut up, outermost first: tasks for threads, loops in a task, the register tile.

    The register tile is ``n_tile x oc_tile x oh_tile x ow_tile`` vectors of accumulators. Images, rows and columns are rounded
    up to whole tiles and tasks (the surplus is computed and dropped); ``oc_tile * oc_task`` divides the output blocks.

    :param oc_task: register tiles along output channels in one task.
    :param oh_task: register tiles along rows in one task.
    :param parallel: whether tasks go to the thread pool at all.
    :param columns_outside: a task takes all its channels and rows before it moves on along the columns: weights are read again
        for every tile of columns, data once. Else it finishes a row of tiles first.
    :param unroll: how many of the innermost loops of the reduction are unrolled.
    """

    n_tile: int = 1
    oc_tile: int = 1
    oh_tile: int = 1
    ow_tile: int = 1
    oc_task: int = 1
    oh_task: int = 1
    parallel: bool = True
    columns_outside: bool = False
    unroll: int = 0

    def extent(self, workload: Conv2d) -> tuple[int, int, int]:
        """Images, rows, columns that are computed.

        :raises ValueError: where the channels are not cut evenly.
        """
        outputs = layout.blocks(workload.out_channels, workload.out_block)
        if outputs % (self.oc_tile * self.oc_task):
            raise ValueError(f"{outputs} blocks of output channels do not divide into tasks of {self.oc_task} x {self.oc_tile}")
        sizes = (workload.batch, workload.out_height, workload.out_width)
        steps = (self.n_tile, self.oh_tile * self.oh_task, self.ow_tile)
        n, oh, ow = (-(-size // step) * step for size, step in zip(sizes, steps, strict=True))
        return n, oh, ow


@dataclass(frozen=True, slots=True)
class RegisterFile:
    """What an ISA offers to a register tile.

    :param accumulators: vectors left for sums after operands took theirs.
    :param lanes: int32 or float32 per vector.
    :param steps: of the reduction that one load of a pixel serves: instructions that take a lane each share it.
    :param load: multiply-accumulates that could start while one vector is loaded.
    :param enough: sums that a default takes at most, 0: all that fit. More would hide no latency and only end later.
    :param pixels: whose data can be at work at once, 0: as many as have sums.
    """

    accumulators: int
    lanes: int
    steps: int = 1
    load: int = 1
    enough: int = 0
    pixels: int = 0

    def vectors(self, block: int) -> int:
        """How many hold the sums of a block of channels."""
        return max(1, block // self.lanes)


_NEON = RegisterFile(24, 4, steps=4, load=2)  # of 32: six registers of data and two of weights are at work with 24 of sums
REGISTERS = {
    "avx512vnni": RegisterFile(26, 16, enough=16), "avxvnni": RegisterFile(12, 8), "avx2": RegisterFile(12, 8),
    "generic": RegisterFile(12, 4),
    "i8mm": _NEON, "dotprod": _NEON, "neon": _NEON,
}  # fmt: skip


def registers_for(workload: Conv2d | MatMul, isa: str) -> RegisterFile:
    """The ISA's registers as the workload's sums fill them."""
    found = REGISTERS[isa]
    # A vector of float16 has twice the lanes, and one load of a pixel as many steps. Instructions take an element of 16 bits
    # from the lower half of the registers only.
    in_half = workload.half and ISAS[isa].half
    return replace(found, lanes=2 * found.lanes, steps=8, accumulators=24, pixels=8) if in_half else found


# Weights beyond this many bytes do not stay in the first cache, which has to leave room for data; a vector of them then takes
# as long as this many multiply-accumulates.
NEAR_WEIGHTS, FAR_LOAD = 24 * 1024, 3.4

# Below this many multiply-accumulates per thread, waking the pool (about 5 us) costs more than it saves.
WORTH_A_THREAD = 100_000


def default(workload: Conv2d, isa: str, cores: int) -> ConvSchedule:
    """The tile with the lowest estimated cost: sums wasted on rounding, and loads that the multipliers wait for."""
    n_tile, oc_tile, oh_tile, ow_tile = _register_tile(workload, isa)
    parallel = cores > 1 and workload.macs >= 2 * WORTH_A_THREAD
    oc_tiles, rows = layout.blocks(workload.out_channels, workload.out_block) // oc_tile, -(-workload.out_height // oh_tile)
    split = _channel_tasks if is_mostly_weights(workload) else _tasks
    oc_task, oh_task = split(workload.batch, oc_tiles, rows, cores if parallel else 1)
    return ConvSchedule(n_tile, oc_tile, oh_tile, ow_tile, oc_task, oh_task, parallel)


def over_tiles(grid: Conv2d, isa: str, cores: int) -> ConvSchedule:
    """As `default`, for a Winograd convolution: a task has all channels, unless weights are most of what it reads.

    :param grid: its products, as `winograd.grid` has them.
    """
    _, oc_tile, oh_tile, ow_tile = _register_tile(replace(grid, batch=1), isa)
    parallel = cores > 1 and grid.macs >= WORTH_A_THREAD  # each counts for 16 or 36
    oc_task, rows = layout.blocks(grid.out_channels, grid.out_block) // oc_tile, -(-grid.out_height // oh_tile)
    if is_mostly_weights(grid):
        oc_task, oh_task = _channel_tasks(grid.batch, oc_task, rows, cores if parallel else 1)
    else:
        oh_task = largest_divisor(rows, rows * grid.batch // (8 * cores))  # their tiles stay in a cache
    return ConvSchedule(1, oc_tile, oh_tile, ow_tile, oc_task, oh_task, parallel)


def _register_tile(workload: Conv2d, isa: str) -> tuple[int, int, int, int]:
    w, registers = workload, registers_for(workload, isa)
    largest = largest_tile(w, isa)
    if registers.enough:
        largest = min(largest, registers.enough // registers.vectors(w.out_block))
    candidates = _candidates(w, isa, largest)
    sizes, bytes_of_block = (w.batch, w.out_height, w.out_width), weights_of_block(w, isa)
    return min(candidates, key=lambda tile: estimate(tile, sizes, registers, w.out_block, bytes_of_block))


def weights_of_block(workload: Conv2d, isa: str) -> int:
    """Bytes of the weights of a block of output channels."""
    w = workload
    size = {"int8": 1, "int16": 2, "float16": 2, "float32": 4}[layout.weight_layout(w, isa).dtype]
    return layout.input_blocks_spanned(w) * w.in_block * w.kernel[0] * w.kernel[1] * w.out_block * size


def _candidates(workload: Conv2d, isa: str, accumulators: int) -> list[tuple[int, int, int, int]]:
    outputs = layout.blocks(workload.out_channels, workload.out_block)
    oc_tiles = [tile for tile in range(1, min(outputs, 8) + 1) if outputs % tile == 0 and workload.groups == 1] or [1]
    heights, step = range(1, min(workload.out_height, 4) + 1), step_of(workload, isa)
    widths = range(step, min(-(-workload.out_width // step) * step, max(accumulators, step)) + 1, step)
    images = range(1, min(workload.batch, accumulators) + 1) if workload.out_height * workload.out_width == 1 else (1,)
    tiles = product(images, oc_tiles, heights, widths)
    pixels = registers_for(workload, isa).pixels or accumulators
    return [
        (n, oc, oh, ow) for n, oc, oh, ow in tiles
        if n * oc * oh * ow <= max(accumulators, 1) and n * oh * ow <= max(pixels, step)
    ]  # fmt: skip


def largest_tile(workload: Conv2d, isa: str) -> int:
    """How many pixels of a block of channels have their sums in registers at a time."""
    registers = registers_for(workload, isa)
    # Where pixels are multiplied in pairs, both halves of their data wait in registers beside the sums.
    sums = registers.accumulators * 2 // 3 if step_of(workload, isa) > 1 else registers.accumulators
    return sums // registers.vectors(workload.out_block)


def step_of(workload: Conv2d, isa: str) -> int:
    """What the columns of a register tile are a multiple of."""
    return layout.weight_layout(workload, isa).pixels


def estimate(
    tile: tuple[int, int, int, int], sizes: tuple[int, int, int], registers: RegisterFile, block: int, weights: int = 0
) -> tuple[float, int]:
    """Estimated cycles per useful multiply-accumulate; ties go to the tile with fewer rows.

    :param tile: images, blocks of output channels, rows, columns.
    :param block: channels in a block.
    :param weights: bytes of the weights of a block of output channels.
    """
    n, oc, oh, ow = tile
    waste = 1.0
    for size, step in zip(sizes, (n, oh, ow), strict=True):
        waste *= -(-size // step) * step / size
    vectors = registers.vectors(block)
    sums, loads = n * oc * oh * ow * vectors, oc * vectors + n * oh * ow / registers.steps
    # A multiply-accumulate per cycle, loads beside it, a latency of 8 that independent sums hide, and a step's own overhead.
    far = FAR_LOAD * oc * vectors if oc * weights > NEAR_WEIGHTS else 0
    cycles = max(sums, registers.load * loads, far, 8) + 0.15 * loads + 0.5
    return waste * cycles / sums, oh


def over_window(shape: tuple[int, ...], operations: int, isa: str, cores: int, *, rounded: bool) -> ConvSchedule:
    """The tile of a reduction without channels to sum over (depthwise, pooling): some columns of one channel block.

    :param shape: of the output, blocked.
    :param operations: in all, to tell whether threads are worth their price.
    :param rounded: whether columns may be rounded up to whole tiles; else the tile divides them.
    """
    batch, blocks, height, width, block = shape
    columns = max(1, min(width, 8, REGISTERS[isa].accumulators // REGISTERS[isa].vectors(block)))
    widths = [step for step in range(1, columns + 1) if rounded or width % step == 0]
    # Weights and loop counters are paid once a tile, about a third of a column's own cost.
    ow_tile = min(widths, key=lambda step: -(-width // step) * (step + 0.3))
    parallel = cores > 1 and operations >= WORTH_A_THREAD
    oc_task, oh_task = _tasks(batch, blocks, height, cores if parallel else 1)
    return ConvSchedule(ow_tile=ow_tile, oc_task=oc_task, oh_task=oh_task, parallel=parallel)


def _tasks(batch: int, oc_tiles: int, rows: int, cores: int) -> tuple[int, int]:
    """Register tiles per task along channels and rows: about eight tasks a core, rows split before channels.

    Whatever a task holds, its padded rows are copied once, so all channels stay together as long as rows suffice.
    """
    wanted = 1 if cores == 1 else 8 * cores
    oh_task = largest_divisor(rows, rows * batch // wanted)
    missing = -(-wanted // (batch * (rows // oh_task)))
    return largest_divisor(oc_tiles, oc_tiles // missing), oh_task


def _channel_tasks(batch: int, oc_tiles: int, rows: int, cores: int) -> tuple[int, int]:
    """As `_tasks`, channels split before rows: each weight then goes through one cache, and once for all images.

    As few tasks as keep all cores busy to the end: within a task the next weights are known, and can be fetched in time.
    """

    def cost(cut: tuple[int, int]) -> float:
        channels, part = cut
        tasks = channels * part * batch
        # Weights are read again for each part of the rows: a part more takes as long as 3 % of idle cores.
        return -(-tasks // cores) * cores / tasks * (1 + 0.03 * (part - 1)) + 0.002 * channels

    channels, part = min(product(_divisors(oc_tiles), _divisors(rows)), key=cost)
    return oc_tiles // channels, rows // part


def _divisors(number: int) -> list[int]:
    return [size for size in range(1, number + 1) if number % size == 0]


def is_mostly_weights(workload: Conv2d) -> bool:
    """Whether an image's worth of data is less than the weights that it meets."""
    taps = workload.kernel[0] * workload.kernel[1] * workload.out_channels // workload.groups
    return taps > workload.in_height * workload.in_width


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of `number` up to `limit`; 1 if there is none."""
    return next((size for size in range(min(limit, number), 0, -1) if number % size == 0), 1)
