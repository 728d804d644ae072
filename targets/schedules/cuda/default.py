"""A schedule for GPUs for any function that came without one: elements for threads, sums inside a thread or across a warp."""

from __future__ import annotations

import math
from typing import Any

from deburr.targets.schedules.cuda import threads

# CUDA has vectors of others too, but not all that TVM would write.
IN_VECTORS = frozenset({"float32", "int32", "uint8", "int8"})
WORTH_A_WARP = 256  # elements of a sum: fewer are one thread's
VECTOR = 4  # elements
FEW_SUMS = 4096  # so many threads keep a GPU busy; with more sums each can be one thread's


def schedule(plan: Any, blocks: list[Any]) -> None:
    """Bind what is left of a function after inlining; each stage becomes a kernel of its own."""
    types = {str(getattr(parameter.ty, "dtype", "")) for parameter in plan.mod["main"].params}
    widest = VECTOR if types <= IN_VECTORS else 1
    for block in blocks:
        _bind(plan, block, widest)


def _bind(plan: Any, block: Any, widest: int) -> None:
    spatial, reducing = threads.spatial(plan, block)
    if not spatial:
        spatial = [plan.add_unit_loop(reducing[0] if reducing else block)]
    plan.reorder(*spatial, *reducing)
    sums = math.prod(threads.extent(plan, loop) for loop in spatial)
    if reducing and sums <= FEW_SUMS and math.prod(threads.extent(plan, loop) for loop in reducing) >= WORTH_A_WARP:
        plan.bind(plan.fuse(*spatial), "blockIdx.x")
        _, thread = plan.split(plan.fuse(*reducing), [None, threads.WARP])
        plan.bind(thread, "threadIdx.x")
    else:
        threads.spread(plan, spatial, widest=1 if reducing else widest)
