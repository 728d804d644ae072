"""Schedules for CPUs with vector registers: one template, an ISA's own multiply-accumulate or LLVM's choice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deburr.targets.kernels import layout, planes
from deburr.targets.schedules import prefetch
from deburr.targets.schedules.dot import dot

if TYPE_CHECKING:
    from deburr.targets.kernels.workload import Conv2d
    from deburr.targets.schedules.dot import Dot
    from deburr.targets.schedules.tile import ConvSchedule

    Module = Any  # tvm.IRModule
    Schedule = Any  # tvm.s_tir.Schedule
    Block = Any
    Loop = Any


def convolution(module: Module, workload: Conv2d, isa: str, tile: ConvSchedule) -> Module:
    """Tasks in parallel; in a task the padded rows, then register tiles that keep their sums over the whole reduction."""
    from tvm.s_tir import Schedule

    schedule = Schedule(module)
    output, accumulate = schedule.get_sblock("output"), schedule.get_sblock("accumulate")
    task, inner = _cut_output(schedule, output, tile)
    schedule.compute_at(accumulate, inner, preserve_unit_loops=True)
    chunks = Chunks.of(schedule, accumulate, 4)
    steps = schedule.get_loops(accumulate)[-5:-2] if chunks is None else chunks.loops
    pad_in_task(schedule, task, planes.vector(workload.in_width) if layout.weight_layout(workload, isa).taps > 1 else 0)
    register_tile(schedule, accumulate, Reduction(5, tile.unroll), dot(workload, isa), chunks)
    if prefetch.pays(workload, tile):
        prefetch.weights(schedule, workload, tile, schedule.get_loops(output)[:4], steps)
    return schedule.mod


def _cut_output(schedule: Schedule, output: Block, tile: ConvSchedule) -> tuple[Loop, Loop]:
    """Splits the output's loops; returns the task loop and the innermost loop around a register tile."""
    n, o, y, x, c = schedule.get_loops(output)
    n, n_tile = schedule.split(n, [None, tile.n_tile])
    o, o_task, o_tile = schedule.split(o, [None, tile.oc_task, tile.oc_tile])
    y, y_task, y_tile = schedule.split(y, [None, tile.oh_task, tile.oh_tile])
    x, x_tile = schedule.split(x, [None, tile.ow_tile])
    around = (x, o_task, y_task) if tile.columns_outside else (o_task, y_task, x)
    # Channels before images: what one core multiplies with the same weights comes one after the other.
    schedule.reorder(o, n, y, *around, n_tile, o_tile, y_tile, x_tile, c)
    task = schedule.fuse(o, n, y)
    if tile.parallel:
        schedule.parallel(task)
    schedule.vectorize(c)
    for loop in (n_tile, o_tile, y_tile, x_tile):
        schedule.unroll(loop)
    return task, around[-1]


@dataclass(frozen=True, slots=True)
class Reduction:
    """How many of a block's innermost loops sum, and how many of those are unrolled."""

    loops: int
    unrolled: int


@dataclass(frozen=True, slots=True)
class Chunks:
    """The stages of a sum whose parts are summed in another type (`kernels.chunks`): part by part, under one tile.

    :param block: the one that sums a part.
    :param loops: over the parts.
    :param tile: the loops of "accumulate" over the tile, inside of those.
    """

    block: Block
    loops: list[Loop]
    tile: list[Loop]

    @classmethod
    def of(cls, schedule: Schedule, accumulate: Block, axes: int) -> Chunks | None:
        """Puts the parts where they are needed, once "accumulate" has its place; None where the sum has no parts.

        :param axes: of the reduction.
        """
        if not has_block(schedule, "chunk"):
            return None
        loops = schedule.get_loops(accumulate)
        outside, tile, block = list(loops[-axes:]), list(loops[-axes - 5 : -axes]), schedule.get_sblock("chunk")
        schedule.set_scope(accumulate, 0, "local")
        schedule.reorder(*outside, *tile)
        schedule.compute_at(block, outside[-1], preserve_unit_loops=True)
        return cls(block, outside, tile)

    def add(self, schedule: Schedule, accumulate: Block) -> None:
        """Behind everything that moves another stage: TVM sees no sum in it any more."""
        schedule.vectorize(self.tile[-1])
        init = schedule.decompose_reduction(accumulate, self.loops[0])
        *init_tile, init_lanes = schedule.get_loops(init)[-5:]
        schedule.vectorize(init_lanes)
        for loop in (*init_tile, *self.tile[:-1]):
            schedule.unroll(loop)


def register_tile(
    schedule: Schedule, accumulate: Block, reduction: Reduction, instruction: Dot | None, chunks: Chunks | None = None
) -> None:
    """Reduction outside, the tile inside and unrolled, so that every accumulator has a register of its own.

    An instruction takes the last loops of the reduction and the lanes.
    """
    if chunks is not None:
        chunks.add(schedule, accumulate)
        accumulate = chunks.block
    loops, spatial = schedule.get_loops(accumulate), 7 if instruction is not None and instruction.pixels > 1 else 5
    sums, (n, o, y, x, *channels) = list(loops[-reduction.loops :]), loops[-reduction.loops - spatial : -reduction.loops]
    schedule.set_scope(accumulate, 0, "local")
    # What the smaller side of the tile holds waits in registers while the other side passes by, one after the other.
    few_channels = _extent(schedule, o) < _extent(schedule, y) * _extent(schedule, x)
    pixels_and_channels = [n, y, x, o] if few_channels else [n, o, y, x]
    if instruction is None:
        tile, lanes, inside = pixels_and_channels, channels, []
    else:
        vectors, *lanes = channels if spatial > 5 else schedule.split(channels[0], [None, instruction.lanes])
        tile = [o, vectors, n, y, x] if instruction.pixels_inside else [*pixels_and_channels, vectors]
        group = sums.pop()
        if instruction.parts > 1:
            sums += schedule.split(sums.pop(), [None, instruction.parts])
        inside = [group] if instruction.group > 1 else []
        sums = sums if inside else [group, *sums]
    schedule.reorder(*sums, *tile, *lanes, *inside)
    if instruction is None:
        schedule.vectorize(lanes[0])
    init = schedule.decompose_reduction(accumulate, sums[0])
    init_loops = schedule.get_loops(init)[-len(tile) - len(lanes) :]
    init_lanes = init_loops[len(tile) :]
    schedule.vectorize(schedule.fuse(*init_lanes) if len(init_lanes) > 1 else init_lanes[0])
    unrolled = max(reduction.unrolled, 1 if instruction is not None and instruction.parts > 1 else 0)
    for loop in [*init_loops[: len(tile)], *sums[len(sums) - unrolled :], *tile]:
        schedule.unroll(loop)
    if instruction is not None:
        schedule.tensorize(lanes[0], instruction.intrinsic)


def _extent(schedule: Schedule, loop: Loop) -> int:
    return int(schedule.get(loop).extent)


def elementwise(module: Module, parallel: bool) -> Module:
    """Every stage's outer loops fused and parallel, its innermost loop vectorized where that is a channel block."""
    from tvm.s_tir import Schedule

    schedule = Schedule(module)
    block = schedule.get_sblock("output")
    *outer, inner = schedule.get_loops(block)
    task = schedule.fuse(*outer[:-1]) if len(outer) > 1 else outer[0]
    if parallel:
        schedule.parallel(task)
    schedule.vectorize(inner)
    return schedule.mod


def reduction(module: Module, tile: ConvSchedule) -> Module:
    """Channel-blocked reductions over a window (pooling, depthwise): some columns' sums at a time, the window outside."""
    from tvm.s_tir import Schedule

    schedule = Schedule(module)
    output, accumulate = schedule.get_sblock("output"), schedule.get_sblock("accumulate")
    task, inner = _cut_output(schedule, output, tile)
    schedule.compute_at(accumulate, inner, preserve_unit_loops=True)
    pad_in_task(schedule, task)
    register_tile(schedule, accumulate, Reduction(2, tile.unroll), None)
    return schedule.mod


def pad_in_task(schedule: Schedule, task: Loop, vector: int = 0) -> None:
    """Each task copies the rows that it reads, border and all: they stay in its cache, with no second trip to the pool.

    :param vector: elements that are copied at a time; 0: the innermost loop's, a block of channels.
    """
    if has_block(schedule, "pad"):
        pad = schedule.get_sblock("pad")
        schedule.compute_at(pad, task, preserve_unit_loops=True)
        loop = schedule.get_loops(pad)[-1]
        if vector:
            _, loop = schedule.split(loop, [None, vector])
        schedule.vectorize(loop)


def has_block(schedule: Schedule, name: str) -> bool:
    return any(schedule.get(child).name_hint == name for child in schedule.get_child_blocks(schedule.get_sblock("root")))
