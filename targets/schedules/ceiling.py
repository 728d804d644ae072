"""The most multiply-accumulates a second that this machine can do, measured with bare instructions on registers.

What a kernel reaches of it is the share that a profile shows. One data element after the other is broadcast and multiplied with
weights that stay in registers, so that nothing but the instruction itself can be the limit.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from deburr.targets.kernels.layout import weight_layout
from deburr.targets.kernels.workload import Conv2d
from deburr.targets.schedules import pipeline
from deburr.targets.schedules.dot import Dot, dot

if TYPE_CHECKING:
    from deburr.targets.target import Target

DEPTH, REPEATS = 1024, 64  # of the data, which stays in the first-level cache, and how often it is gone over
ROUNDS = 15
SUMS = (4, 6, 10, 12)  # vectors of them under way: more hide the latency better, until registers run out


def ceiling(target: Target, dtype: str, threads: int) -> float:
    """Multiply-accumulates a second of all `threads` together, the best of some rounds. Runs on as many threads as are set.

    :param dtype: "uint8" (by signed weights, into int32) or "float32".
    """
    return max(_rate(target, dtype, threads, vectors) for vectors in SUMS)


def _rate(target: Target, dtype: str, threads: int, vectors: int) -> float:
    import numpy as np
    import tvm

    function, arguments, macs = _function(target, dtype, threads, vectors)
    call = pipeline.library(function, target)["main"]
    tensors = [tvm.runtime.tensor(np.ones([int(size) for size in one.shape], str(one.dtype))) for one in arguments]
    call(*tensors)
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        call(*tensors)
        seconds.append(time.perf_counter() - start)
    return macs / min(seconds)


def _function(target: Target, dtype: str, threads: int, vectors: int) -> tuple[Any, list[Any], int]:
    """A scheduled function, its arguments, and the multiply-accumulates of a call."""
    from tvm import te
    from tvm.s_tir import Schedule

    block = target.block
    work = Conv2d(1, block, 1, 1, block, (1, 1), dtype=dtype, in_block=block, out_block=block)
    layout, instruction = weight_layout(work, target.isa), dot(work, target.isa)
    lanes = instruction.lanes if instruction is not None else block
    data = te.placeholder((DEPTH, layout.group), layout.data_dtype, name="data")
    weight = te.placeholder((vectors, lanes, layout.group), layout.dtype, name="weight")
    repeat, depth, part = (te.reduce_axis((0, size), name) for size, name in
                           ((REPEATS, "repeat"), (DEPTH, "depth"), (layout.group, "part")))  # fmt: skip
    total = "float32" if dtype == "float32" else "int32"
    sums = te.compute(
        (threads, vectors, lanes),
        lambda _, v, c: te.sum(data[depth, part].astype(total) * weight[v, c, part].astype(total), [repeat, depth, part]),
        name="accumulate",
    )
    output = te.compute(sums.shape, lambda t, v, c: sums[t, v, c], name="output")
    schedule = Schedule(_module([data, weight, output]))
    _on_registers(schedule, instruction)
    macs = threads * vectors * lanes * REPEATS * DEPTH * layout.group
    return schedule.mod["main"], [data, weight, output], macs


def _module(arguments: list[Any]) -> Any:
    import tvm
    from tvm import te

    return tvm.IRModule({"main": te.create_prim_func(arguments)})


def _on_registers(schedule: Any, instruction: Dot | None) -> None:
    """A thread for each row of the output; its sums never leave their registers."""
    accumulate, output = schedule.get_sblock("accumulate"), schedule.get_sblock("output")
    thread, vector, lane = schedule.get_loops(output)
    schedule.parallel(thread)
    schedule.unroll(vector)
    schedule.vectorize(lane)
    schedule.compute_at(accumulate, thread, preserve_unit_loops=True)
    schedule.set_scope(accumulate, 0, "local")
    *_, vector, lane, repeat, depth, part = schedule.get_loops(accumulate)
    if instruction is None:
        schedule.reorder(repeat, depth, part, vector, lane)
        schedule.vectorize(lane)
    else:
        depth, one_of = schedule.split(depth, [None, instruction.parts])
        schedule.unroll(one_of)
        inside = (lane, part) if instruction.group > 1 else (lane,)
        schedule.reorder(repeat, depth, *(() if instruction.group > 1 else (part,)), one_of, vector, *inside)
    init = schedule.decompose_reduction(accumulate, repeat)
    *_, init_vector, init_lane = schedule.get_loops(init)
    schedule.vectorize(init_lane)
    schedule.unroll(init_vector)
    schedule.unroll(vector)
    if instruction is not None:
        schedule.tensorize(lane, instruction.intrinsic)
