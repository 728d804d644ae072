"""Schedules for GPUs of what has no sums over channels: an element, or a few neighbours in a vector, for each thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from deburr.targets.schedules.cuda import threads
from deburr.targets.schedules.tile import largest_divisor

Module = Any  # tvm.IRModule
Schedule = Any  # tvm.s_tir.Schedule

MOST_THREADS = 256
FEW_THREADS = 64  # as long as there are that many, more blocks are better than more threads in one


def elementwise(module: Module, widest: int) -> Module:
    """The stage "output".

    :param widest: elements that a thread loads and stores at a time, at most.
    """
    from tvm.s_tir import Schedule

    plan = Schedule(module)
    threads.spread(plan, plan.get_loops(plan.get_sblock("output")), widest)
    return plan.mod


def window(module: Module) -> Module:
    """Reductions over a window (pooling, depthwise): four channels of a pixel for each thread, their sums in registers."""
    from tvm.s_tir import Schedule

    plan = Schedule(module)
    if threads.has_block(plan, "pad"):
        plan.compute_inline(plan.get_sblock("pad"))
    accumulate = plan.get_sblock("accumulate")
    thread = _share_evenly(plan)
    plan.set_scope(accumulate, 0, "local")
    plan.compute_at(accumulate, thread, preserve_unit_loops=True)
    *_, channels, rows, columns = plan.get_loops(accumulate)
    plan.reorder(rows, columns, channels)
    plan.vectorize(channels)
    start = plan.decompose_reduction(accumulate, rows)
    plan.vectorize(plan.get_loops(start)[-1])
    if threads.extent(plan, rows) * threads.extent(plan, columns) <= 49:
        plan.unroll(rows)
        plan.unroll(columns)
    return plan.mod


def _share_evenly(plan: Schedule) -> Any:
    """Threads for blocks of channels, pixels of a row and vectors, so many that they divide the output; the innermost loop.

    TVM gives a sum whose thread may have nothing to do no vectors.
    """
    n, o, y, x, c = plan.get_loops(plan.get_sblock("output"))
    lanes = threads.vector_of(plan, c, 4)
    vectors = threads.extent(plan, c) // lanes
    columns = largest_divisor(threads.extent(plan, x), max(1, MOST_THREADS // vectors))
    blocks = largest_divisor(threads.extent(plan, o), max(1, FEW_THREADS // (vectors * columns)))
    o, o_inside = plan.split(o, [None, blocks])
    x, x_inside = plan.split(x, [None, columns])
    c, vector = plan.split(c, [None, lanes])
    plan.reorder(n, o, y, x, o_inside, x_inside, c, vector)
    plan.bind(plan.fuse(n, o, y, x), "blockIdx.x")
    thread = plan.fuse(o_inside, x_inside, c)
    plan.bind(thread, "threadIdx.x")
    if lanes > 1:
        plan.vectorize(vector)
    return thread


def prepare(plan: Schedule, names: Sequence[str]) -> None:
    """Stages that are kernels of their own before the main one; each element is one thread's, sums included."""
    for name in names:
        if threads.has_block(plan, name):
            block = plan.get_sblock(name)
            threads.spread(plan, threads.spatial(plan, block)[0], widest=1)
