"""Schedules for CPUs with vector registers: x86 with AVX-512 VNNI, AVX2, or whatever LLVM makes of plain loops."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deburr.targets.kernels import layout
from deburr.targets.schedules import intrinsics

if TYPE_CHECKING:
    from deburr.targets.kernels.workload import Conv2d
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
    _pad_in_task(schedule, task)
    _register_tile(schedule, accumulate, layout.weight_layout(workload, isa).group, isa)
    return schedule.mod


def _cut_output(schedule: Schedule, output: Block, tile: ConvSchedule) -> tuple[Loop, Loop]:
    """Splits the output's loops; returns the task loop and the loop around a register tile."""
    n, o, y, x, c = schedule.get_loops(output)
    n, n_tile = schedule.split(n, [None, tile.n_tile])
    o, o_task, o_tile = schedule.split(o, [None, tile.oc_task, tile.oc_tile])
    y, y_task, y_tile = schedule.split(y, [None, tile.oh_task, tile.oh_tile])
    x, x_tile = schedule.split(x, [None, tile.ow_tile])
    schedule.reorder(n, o, y, o_task, y_task, x, n_tile, o_tile, y_tile, x_tile, c)
    task = schedule.fuse(n, o, y)
    if tile.parallel:
        schedule.parallel(task)
    schedule.vectorize(c)
    for loop in (n_tile, o_tile, y_tile, x_tile):
        schedule.unroll(loop)
    return task, x


def _register_tile(schedule: Schedule, accumulate: Block, group: int, isa: str) -> None:
    """Reduction outside, the tile inside and unrolled, so that every accumulator has a register of its own."""
    *tile, lanes, io, kh, kw, ii, ig = schedule.get_loops(accumulate)[-10:]
    schedule.reorder(io, kh, kw, ii, *tile, lanes, ig)
    schedule.set_scope(accumulate, 0, "local")
    instruction = intrinsics.dot(isa, group)
    if instruction is None:
        schedule.reorder(ig, lanes)
        schedule.vectorize(lanes)
    else:
        vectors, lanes = schedule.split(lanes, [None, instruction.lanes])
        tile.append(vectors)
    init = schedule.decompose_reduction(accumulate, io)
    *init_tile, init_lanes = schedule.get_loops(init)[-5:]
    schedule.vectorize(init_lanes)
    for loop in [*init_tile, *tile]:
        schedule.unroll(loop)
    if instruction is not None:
        schedule.tensorize(lanes, instruction.intrinsic)


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


def reduction(module: Module, parallel: bool) -> Module:
    """Channel-blocked reductions over a window (pooling, depthwise): one vector of sums per output position."""
    from tvm.s_tir import Schedule

    schedule = Schedule(module)
    output, accumulate = schedule.get_sblock("output"), schedule.get_sblock("accumulate")
    n, o, y, x, c = schedule.get_loops(output)
    task = schedule.fuse(n, o, y)
    if parallel:
        schedule.parallel(task)
    schedule.vectorize(c)
    schedule.compute_at(accumulate, x)
    _pad_in_task(schedule, task)
    schedule.set_scope(accumulate, 0, "local")
    lanes, *window = schedule.get_loops(accumulate)[-3:]
    schedule.reorder(*window, lanes)
    schedule.vectorize(lanes)
    init = schedule.decompose_reduction(accumulate, window[0])
    schedule.vectorize(schedule.get_loops(init)[-1])
    return schedule.mod


def _pad_in_task(schedule: Schedule, task: Loop) -> None:
    """Each task copies the rows that it reads, border and all: they stay in its cache, with no second trip to the pool."""
    if _has_block(schedule, "pad"):
        pad = schedule.get_sblock("pad")
        schedule.compute_at(pad, task)
        schedule.vectorize(schedule.get_loops(pad)[-1])


def _has_block(schedule: Schedule, name: str) -> bool:
    return any(schedule.get(child).name_hint == name for child in schedule.get_child_blocks(schedule.get_sblock("root")))
