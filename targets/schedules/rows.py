"""The schedule of what goes along rows: rows in parallel, everything of a row while it is in the cache, vectors along it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deburr.targets.kernels.workload import Rows

    Module = Any  # tvm.IRModule

WORTH_A_THREAD = 8_192  # elements; each is read several times


def schedule(module: Module, workload: Rows, *, parallel: bool) -> Module:
    """Stages move to the loop over rows from the last to the first, each before what reads it."""
    from tvm.s_tir import Schedule

    w, plan = workload, Schedule(module)
    blocks = plan.get_child_blocks(plan.get_sblock("root"))
    output = plan.get_sblock("output")
    row = plan.get_loops(output)[0]
    if parallel and w.rows * w.size >= WORTH_A_THREAD:
        row, inner = plan.split(row, [None, _rows_of_a_task(w)])
        plan.parallel(row)
        row = inner
    for block in reversed(blocks):
        if plan.get(block).name_hint != "output":
            plan.compute_at(block, row, preserve_unit_loops=True)
    for block in blocks:
        _vectorize(plan, block, w)
    return plan.mod


def _rows_of_a_task(workload: Rows) -> int:
    """A divisor of the rows: a task of a few thousand elements is worth handing over."""
    wanted = max(1, min(2 * WORTH_A_THREAD // workload.size, workload.rows // 8))
    return next(size for size in range(wanted, 0, -1) if workload.rows % size == 0)


def _vectorize(plan: Any, block: Any, workload: Rows) -> None:
    w, name = workload, str(plan.get(block).name_hint)
    loops = plan.get_loops(block)
    if name.endswith("_lanes"):
        lanes, steps = loops[-2:]
        plan.reorder(steps, lanes)
        plan.vectorize(lanes)
        init = plan.decompose_reduction(block, steps)
        plan.vectorize(plan.get_loops(init)[-1])
    elif name in ("output", "exponential") and plan.get(loops[-1]).extent == w.size and w.size % w.lanes == 0:
        _, inner = plan.split(loops[-1], [None, w.lanes])  # other sizes LLVM cuts into vectors and a rest by itself
        plan.vectorize(inner)
