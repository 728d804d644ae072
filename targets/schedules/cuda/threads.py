"""Binding loops to blocks and threads: what every schedule for GPUs does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Schedule = Any  # tvm.s_tir.Schedule
Block = Any
Loop = Any

WARP = 32
TURNS = 4  # vectors that a thread moves at a time


def extent(plan: Schedule, loop: Loop) -> int:
    return int(plan.get(loop).extent)


def has_block(plan: Schedule, name: str) -> bool:
    """Whether the function has a stage of this name."""
    return any(plan.get(child).name_hint == name for child in plan.get_child_blocks(plan.get_sblock("root")))


def spatial(plan: Schedule, block: Block) -> tuple[list[Loop], list[Loop]]:
    """The loops of a block where each stands for one of its axes: those of its elements, and those that are summed over."""
    from tvm import tirx

    pairs = list(zip(plan.get(block).iter_vars, plan.get_loops(block), strict=True))
    sums = [axis.iter_type == tirx.IterVar.CommReduce for axis, _ in pairs]
    return (
        [loop for (_, loop), is_sum in zip(pairs, sums, strict=True) if not is_sum],
        [loop for (_, loop), is_sum in zip(pairs, sums, strict=True) if is_sum],
    )


def vector_of(plan: Schedule, loop: Loop, widest: int) -> int:
    """The longest vector up to `widest`, a power of two, that divides the loop."""
    size = extent(plan, loop)
    return next((lanes for lanes in (16, 8, 4, 2) if lanes <= widest and size % lanes == 0), 1)


def share(plan: Schedule, loops: Sequence[Loop], warps: int, widest: int) -> None:
    """Loops among the threads of a block that is bound already, neighbours to neighbours, vectors of the last one's elements.

    The vector is split off before anything is fused: TVM then sees that it lies in one row, and one condition is for all of it.
    """
    *outer, last = loops
    last, lanes = plan.split(last, [None, vector_of(plan, last, widest)])
    fused = plan.fuse(*outer, last)
    turn, warp, thread = plan.split(fused, [None, warps, WARP])
    if extent(plan, turn) > TURNS:  # all that is loaded at a time has to wait in registers
        plan.annotate(turn, "pragma_unroll", TURNS)
    plan.bind(warp, "threadIdx.y")
    plan.bind(thread, "threadIdx.x")
    if extent(plan, lanes) > 1:
        plan.vectorize(lanes)


def bring(plan: Schedule, reader: Block, step: Loop, *, depth: int, warps: int, widest: int) -> Block:
    """What `reader` takes of the data in a step, into shared memory by all threads of the block: the stage that does it.

    :param depth: loops around, `step` included.
    :param widest: elements that a thread moves at a time, at most.
    """
    if has_block(plan, "pad"):
        patch = plan.get_sblock("pad")
        plan.set_scope(patch, 0, "shared")
    else:
        patch = plan.cache_read(reader, 0, "shared", consumer_blocks=[reader])
    plan.compute_at(patch, step, preserve_unit_loops=True)
    share(plan, plan.get_loops(patch)[depth:], warps, widest)
    return patch


def spread(plan: Schedule, loops: Sequence[Loop], widest: int, threads: int = 256) -> Loop:
    """Loops over blocks of threads, as `share`; the innermost loop that is bound."""
    *outer, last = loops
    last, lanes = plan.split(last, [None, vector_of(plan, last, widest)])
    fused = plan.fuse(*outer, last)
    block, thread = plan.split(fused, [None, min(threads, rounded_to_warps(extent(plan, fused)))])
    plan.bind(block, "blockIdx.x")
    plan.bind(thread, "threadIdx.x")
    if extent(plan, lanes) > 1:
        plan.vectorize(lanes)
    return thread


def rounded_to_warps(count: int) -> int:
    return -(-count // WARP) * WARP
