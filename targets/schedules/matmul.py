"""The schedule of matrix products: the register tile of a convolution, rows for columns of pixels."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

from deburr.targets.kernels import layout
from deburr.targets.kernels.matmul import convolution
from deburr.targets.schedules import cpu, prefetch, tile
from deburr.targets.schedules.cpu import Chunks, Reduction
from deburr.targets.schedules.dot import dot
from deburr.targets.schedules.tile import ConvSchedule

if TYPE_CHECKING:
    from deburr.targets.kernels.workload import MatMul

    Module = Any  # tvm.IRModule
    Schedule = Any  # tvm.s_tir.Schedule

LARGEST_PANEL = 256 * 1024  # bytes of rows that a task goes over again and again
MOST_SUMS = 16  # vectors: enough to hide latency, and what LLVM keeps of rows and columns beside them still fits registers
STEPS = 16  # of the depth that requests for weights stand between
PADDED = 1.15  # what rows cost that have to be copied, because tiles do not divide them


def default(workload: MatMul, isa: str, cores: int) -> ConvSchedule:
    """Rows in `oh_tile` and `oh_task`, blocks of columns in `oc_tile` and `oc_task`."""
    w = workload
    oc_tile, oh_tile = _register_tile(w, isa)
    parallel = cores > 1 and w.macs >= tile.WORTH_A_THREAD * cores
    tiles, blocks = -(-w.rows // oh_tile), layout.blocks(w.columns, w.block) // oc_tile
    row_bytes = w.depth * (4 if w.dtype == "float32" else 1)
    oh_task = tile.largest_divisor(tiles, max(1, LARGEST_PANEL // (row_bytes * oh_tile)))
    wanted = -(-8 * cores // (w.batches * (tiles // oh_task))) if parallel else 1
    oc_task = tile.largest_divisor(blocks, max(1, blocks // wanted))
    if parallel:  # few columns: rows are shared out
        wanted = -(-4 * cores // (w.batches * (blocks // oc_task)))
        oh_task = tile.largest_divisor(tiles, max(1, min(oh_task, tiles // wanted)))
    return ConvSchedule(oc_tile=oc_tile, oh_tile=oh_tile, oc_task=oc_task, oh_task=oh_task, parallel=parallel)


def _register_tile(workload: MatMul, isa: str) -> tuple[int, int]:
    """Blocks of columns, and rows."""
    w, registers = workload, tile.registers_for(workload, isa)
    most = max(min(registers.accumulators // registers.vectors(w.block), MOST_SUMS), 1)
    blocks = layout.blocks(w.columns, w.block)
    widths = [size for size in range(1, min(blocks, 8) + 1) if blocks % size == 0]
    rows = min(w.rows, most, registers.pixels or most)
    tiles = [(oc, oh) for oc in widths for oh in range(1, rows + 1) if oc * oh <= most]

    def cost(cut: tuple[int, int]) -> tuple[float, int]:
        cycles, _ = tile.estimate((1, *cut, 1), (1, w.rows, 1), registers, w.block)
        return cycles * (PADDED if w.rows % cut[1] else 1), cut[1]

    return min(tiles, key=cost)


def rows_of(workload: MatMul, cut: ConvSchedule) -> int:
    """Rows that are computed: whole register tiles and tasks."""
    step = cut.oh_tile * cut.oh_task
    return -(-workload.rows // step) * step


def schedule(module: Module, workload: MatMul, isa: str, cut: ConvSchedule) -> Module:
    """Packing first, in parallel; then tasks of rows and columns, as in a convolution."""
    from tvm.s_tir import Schedule

    plan = Schedule(module)
    for name in ("pack", "column_sums", "row_sums"):
        if cpu.has_block(plan, name):
            _prepare(plan, name, parallel=cut.parallel)
    output, accumulate = plan.get_sblock("output"), plan.get_sblock("accumulate")
    task, inner = _cut(plan, output, workload, cut)
    plan.compute_at(accumulate, inner, preserve_unit_loops=True)
    chunks = Chunks.of(plan, accumulate, 1)
    steps = _split_depth(plan, accumulate) if chunks is None else [*chunks.loops, plan.get_loops(chunks.block)[-2]]
    loops = len(steps) + 1 if chunks is None else 2
    cpu.pad_in_task(plan, task)
    cpu.register_tile(plan, accumulate, Reduction(loops, cut.unroll), dot(convolution(workload, isa), isa), chunks)
    if len(steps) > 1 and _fetches_ahead(workload, cut):
        _fetch_next(plan, workload, cut, (task, inner), steps[0])
    return plan.mod


def _split_depth(plan: Schedule, accumulate: Any) -> list[Any]:
    """The loop over the depth as two, where it divides: requests for weights find room between them."""
    depth = plan.get_loops(accumulate)[-2]
    count = int(plan.get(depth).extent)
    return list(plan.split(depth, [None, STEPS])) if count % STEPS == 0 and count > STEPS else [depth]


def _fetches_ahead(workload: MatMul, cut: ConvSchedule) -> bool:
    """Whether constant weights are most of what is read, and several tiles of rows go over them."""
    return workload.b is None and workload.columns > workload.rows and cut.oh_task > 1


def _fetch_next(plan: Schedule, workload: MatMul, cut: ConvSchedule, around: tuple[Any, Any], step: Any) -> None:
    """While a tile of columns is multiplied, the weights of the next one are fetched."""
    from tvm import tirx

    task, rows = (plan.get(loop) for loop in around)
    columns = plan.get(plan.get_loops(plan.get_sblock("output"))[1])
    outputs, *block = (int(size) for size in plan.mod["main"].params[1].shape)
    tasks = outputs // cut.oc_tile // cut.oc_task
    parts = -(-workload.rows // (cut.oh_tile * cut.oh_task))
    first = (task.loop_var // parts % tasks * cut.oc_task + columns.loop_var + 1) * cut.oc_tile
    first = tirx.min(first, outputs - cut.oc_tile)
    prefetch.request(plan, [rows], [step], [[first]], cut.oc_tile * prod(block))


def _cut(plan: Schedule, output: Any, workload: MatMul, cut: ConvSchedule) -> tuple[Any, Any]:
    """The loop of tasks, and the innermost loop around a register tile."""
    w, loops = workload, plan.get_loops(output)
    places = {axis: loop for axis, loop in zip(w.out.order, loops, strict=True) if axis >= 0}
    ones = [loop for axis, loop in zip(w.out.order, loops, strict=True) if axis < 0]
    rank = len(w.batch)
    batch = [places[axis] for axis in range(rank)]
    # A vector times a matrix has no rows.
    row, column = (places[axis] if axis in places else plan.add_unit_loop(loops[0]) for axis in (rank, rank + 1))
    y, y_task, y_tile = plan.split(row, [None, cut.oh_task, cut.oh_tile])
    o, o_task, o_tile, c = plan.split(column, [None, cut.oc_task, cut.oc_tile, w.block])
    plan.reorder(*ones, *batch, o, y, o_task, y_task, o_tile, y_tile, c)
    task = plan.fuse(*ones, *batch, o, y)
    if cut.parallel:
        plan.parallel(task)
    if w.columns % w.block == 0:
        plan.vectorize(c)
    for loop in (o_tile, y_tile):
        plan.unroll(loop)
    return task, y_task


def _prepare(plan: Schedule, name: str, *, parallel: bool) -> None:
    block = plan.get_sblock(name)
    loops = plan.get_loops(block)
    if name == "pack":
        task = plan.fuse(*loops[:3])
        if parallel:
            plan.parallel(task)
    elif parallel:
        plan.parallel(loops[0])
