"""The schedule of Winograd convolutions: data to tiles, a product for each place in a tile, products to outputs."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

from deburr.targets.kernels import layout
from deburr.targets.kernels.winograd import grid
from deburr.targets.schedules import cpu, prefetch
from deburr.targets.schedules.cpu import Reduction
from deburr.targets.schedules.dot import dot

if TYPE_CHECKING:
    from deburr.targets.kernels.workload import Conv2d
    from deburr.targets.schedules.tile import ConvSchedule

    Module = Any  # tvm.IRModule
    Schedule = Any  # tvm.s_tir.Schedule
    Loop = Any


def schedule(module: Module, workload: Conv2d, size: int, isa: str, cut: ConvSchedule) -> Module:
    """Tasks are rows of tiles with all their channels, or some channels where `cut` divides those.

    In the first case each task transforms its own data; in the second that is done beforehand, once for all tasks.
    """
    from tvm.s_tir import Schedule

    plan = Schedule(module)
    all_channels = cut.oc_task * cut.oc_tile == layout.blocks(workload.out_channels, workload.out_block)
    task, channels, tile = _cut_output(plan, size, cut)
    plan.compute_at(plan.get_sblock("output_rows"), tile, preserve_unit_loops=True)
    _unrolled(plan, "output_rows")
    _place_products(plan, channels, cut)
    if all_channels:
        plan.compute_at(plan.get_sblock("data_tiles"), task, preserve_unit_loops=True)
    _data(plan, task if all_channels else None, parallel=cut.parallel)
    # Last: nothing can be moved to where an instruction reads it.
    accumulate = plan.get_sblock("accumulate")
    step = plan.get_loops(accumulate)[-3]
    cpu.register_tile(plan, accumulate, Reduction(3, cut.unroll), dot(grid(workload, size), isa))
    if not all_channels:
        _fetch_next(plan, task, step, size, cut)
    return plan.mod


def _fetch_next(plan: Schedule, task: Loop, step: Loop, size: int, cut: ConvSchedule) -> None:
    """While one place in all tiles is multiplied, the weights of the next place are fetched."""
    from tvm import tirx

    _, o_task, i, j, y, x = (plan.get(loop) for loop in plan.get_loops(plan.get_sblock("products"))[:6])
    outputs, edge, _, *block = (int(count) for count in plan.mod["main"].params[1].shape)
    tasks = plan.get(task)
    same = int(tasks.extent) // (outputs // cut.oc_tile // cut.oc_task)
    first = (tasks.loop_var // same * cut.oc_task + o_task.loop_var) * cut.oc_tile
    place = tirx.min(i.loop_var * edge + j.loop_var + 1, edge * edge - 1)
    parts = [[first + index, 0, place] for index in range(cut.oc_tile)]
    prefetch.request(plan, [y, x], [step], parts, prod(block))


def _cut_output(plan: Schedule, size: int, cut: ConvSchedule) -> tuple[Loop, Loop, Loop]:
    """The loop of tasks, that of register tiles along channels, and that of tiles."""
    n, o, y, x, c = plan.get_loops(plan.get_sblock("output"))
    o, o_task, o_tile = plan.split(o, [None, cut.oc_task, cut.oc_tile])
    y, y_task, y_inner = plan.split(y, [None, cut.oh_task * cut.oh_tile, size])
    x, x_inner = plan.split(x, [None, size])
    plan.reorder(o, n, y, o_task, o_tile, y_task, x, y_inner, x_inner, c)
    task = plan.fuse(o, n, y)
    if cut.parallel:
        plan.parallel(task)
    for loop in (y_inner, x_inner):
        plan.unroll(loop)
    plan.vectorize(c)
    return task, o_task, x


def _place_products(plan: Schedule, channels: Loop, cut: ConvSchedule) -> None:
    """For each place in a tile a matrix product, in register tiles."""
    products = plan.get_sblock("products")
    plan.compute_at(products, channels, preserve_unit_loops=True)
    n, o, y, x, i, j, c = plan.get_loops(products)[-7:]
    y, y_tile = plan.split(y, [None, cut.oh_tile])
    x, x_tile = plan.split(x, [None, cut.ow_tile])
    plan.reorder(i, j, y, x, n, o, y_tile, x_tile, c)
    for loop in (o, y_tile, x_tile):
        plan.unroll(loop)
    plan.vectorize(c)
    plan.compute_at(plan.get_sblock("accumulate"), x, preserve_unit_loops=True)


def _data(plan: Schedule, task: Loop | None, *, parallel: bool) -> None:
    """Tiles of data are transformed one by one, from a padded copy."""
    tiles = plan.get_sblock("data_tiles")
    n, block, y, x, i, j, c = plan.get_loops(tiles)[-7:]
    plan.reorder(n, block, y, x, i, j, c)
    if task is None:
        task = plan.fuse(n, block)
        if parallel:
            plan.parallel(task)
    for loop in (i, j):
        plan.unroll(loop)
    plan.vectorize(c)
    plan.compute_at(plan.get_sblock("data_rows"), x, preserve_unit_loops=True)
    _unrolled(plan, "data_rows")
    cpu.pad_in_task(plan, task)


def _unrolled(plan: Schedule, name: str) -> None:
    """A stage in registers: every loop unrolled, a block of channels in a vector."""
    stage = plan.get_sblock(name)
    plan.set_scope(stage, 0, "local")
    *_, rows, columns, c = plan.get_loops(stage)
    for loop in (rows, columns):
        plan.unroll(loop)
    plan.vectorize(c)
