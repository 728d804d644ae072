"""A schedule for GPUs for any function that came without one: elements for threads, sums inside a thread or across a warp."""

from __future__ import annotations

import math
from typing import Any

from deburr.targets.schedules.cuda import threads

WORTH_A_WARP = 256  # elements of a sum: fewer are one thread's
FEW_SUMS = 4096  # so many threads keep a GPU busy; with more sums each can be one thread's


def schedule(plan: Any, blocks: list[Any]) -> None:
    """Bind what is left of a function after inlining; each stage becomes a kernel of its own."""
    for block in blocks:
        _bind(plan, block)


def _bind(plan: Any, block: Any) -> None:
    loops = plan.get_loops(block)
    spatial = threads.spatial(plan, block)
    reducing = [loop for loop in loops if loop not in spatial]
    if not spatial:
        spatial = [plan.add_unit_loop(loops[0] if loops else block)]
    plan.reorder(*spatial, *reducing)
    sums = math.prod(threads.extent(plan, loop) for loop in spatial)
    if reducing and sums <= FEW_SUMS and math.prod(threads.extent(plan, loop) for loop in reducing) >= WORTH_A_WARP:
        plan.bind(plan.fuse(*spatial), "blockIdx.x")
        _, thread = plan.split(plan.fuse(*reducing), [None, threads.WARP])
        plan.bind(thread, "threadIdx.x")
    else:
        threads.spread(plan, spatial, widest=1 if reducing else 4)
