"""The schedule for GPUs of what goes along rows: a warp for each row, its threads side by side along it."""

from __future__ import annotations

from typing import Any

from deburr.targets.schedules.cuda import threads

Module = Any  # tvm.IRModule


def schedule(module: Module) -> Module:
    """The stages of `rows.define`, with as many lanes as a warp has threads.

    Each thread keeps numbers of the row for itself; only the exponentials of a row are read by others, in shared memory.
    """
    from tvm.s_tir import Schedule

    plan = Schedule(module)
    blocks = plan.get_child_blocks(plan.get_sblock("root"))
    row = plan.get_loops(plan.get_sblock("output"))[0]
    plan.bind(row, "blockIdx.x")
    for block in reversed(blocks):
        name = plan.get(block).name_hint
        if name != "output":
            plan.set_scope(block, 0, "shared" if name == "exponential" else "local")
            plan.compute_at(block, row, preserve_unit_loops=True)
    for block in blocks:
        _bind(plan, block)
    return plan.mod


def _bind(plan: Any, block: Any) -> None:
    name, loops = str(plan.get(block).name_hint), plan.get_loops(block)[1:]
    if name.endswith(("_lanes", "_row")):  # [row, lane, step] and [row, lane], which is summed across the warp
        plan.bind(loops[1], "threadIdx.x")
    elif name in ("output", "exponential"):  # one number is the first thread's to write
        _, thread = plan.split(loops[-1] if loops else plan.add_unit_loop(block), [None, threads.WARP])
        plan.bind(thread, "threadIdx.x")
