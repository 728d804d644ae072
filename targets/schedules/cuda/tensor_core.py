"""The schedule of products on tensor cores: a patch of data in shared memory, weights and sums in fragments.

A block of threads computes some blocks of channels by a rectangle of pixels. Step by step along the input channels it brings
the patch that it needs, border and all; its warps then go over all taps of the window. What the epilogue reads goes through
shared memory once, because nobody says which thread holds which sum of a fragment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deburr.targets.kernels import layout
from deburr.targets.schedules.cuda import elementwise, threads, wmma

if TYPE_CHECKING:
    from deburr.targets.kernels.workload import Conv2d, MatMul
    from deburr.targets.schedules.cuda.cut import Cut

    Module = Any  # tvm.IRModule
    Schedule = Any  # tvm.s_tir.Schedule
    Loop = Any


VECTOR = 16  # bytes that a thread loads at a time
ALIGNED = 32  # bytes: where a fragment of float16 begins


@dataclass(frozen=True, slots=True)
class _Data:
    """How the data lies, and what it is multiplied as (wmma.py).

    :param stride: of neighbouring pixels.
    :param widest: elements that a thread can load at a time.
    :param few: channels of a pixel, where sums go over several neighbours; else 0.
    """

    stride: int
    widest: int
    kind: str
    few: int = 0

    def load(self) -> str:
        """The instruction that makes a fragment of it."""
        if self.few:
            return wmma.load_half_neighbours(self.stride, self.few)
        return wmma.load_half_data(self.stride) if self.kind == "float16" else wmma.load_data(self.stride)


def convolution(module: Module, workload: Conv2d, cut: Cut) -> Module:
    """The stages of `fragments.conv2d_fragments`."""
    from tvm.s_tir import Schedule

    plan = Schedule(module)
    n, o, y, x, c = plan.get_loops(plan.get_sblock("output"))
    o, o_inside = plan.split(o, [None, cut.channels])
    y, y_inside = plan.split(y, [None, cut.rows])
    x, x_inside = plan.split(x, [None, cut.columns])
    # Channels go first among blocks that run together: they share the patch, which the second-level cache then has.
    plan.reorder(n, y, x, o, o_inside, y_inside, x_inside, c)
    block = plan.fuse(n, y, x, o)
    taps = layout.weight_layout(workload, "tensorcore").taps
    few = workload.in_block if taps > 1 else 0
    _products(plan, block, [o_inside, y_inside, x_inside, c], cut, _Data(workload.strides[1], *_kind(workload), few))
    return plan.mod


def matrix(module: Module, workload: MatMul, cut: Cut) -> Module:
    """The stages of `fragments.matmul_fragments`; what prepares a computed matrix are kernels of their own before."""
    from tvm.s_tir import Schedule

    plan = Schedule(module)
    elementwise.prepare(plan, ("pack", "column_sums", "row_sums"))
    block, inside = cut_rows_and_columns(plan, workload, cut.channels, cut.columns)
    widest, kind = _kind(workload)
    _products(plan, block, inside, cut, _Data(1, widest if lies_in_rows(workload) else 1, kind))
    return plan.mod


def _kind(workload: Conv2d | MatMul) -> tuple[int, str]:
    """Elements of the data in the longest vector, and what they are multiplied as."""
    return (VECTOR // 4, "float16") if workload.half else (VECTOR, "int8")


def lies_in_rows(workload: MatMul) -> bool:
    """Whether what is summed lies together in the data, so that a thread can load several elements at a time."""
    return workload.a.order[-1] == len(workload.batch) + 1


def cut_rows_and_columns(plan: Schedule, workload: MatMul, blocks: int, rows: int) -> tuple[Loop, list[Loop]]:
    """Splits the output's loops: one over tiles, and [blocks of columns, rows, columns of a block] inside."""
    w = workload
    loops = plan.get_loops(plan.get_sblock("output"))
    places: Mapping[int, Loop] = {axis: loop for axis, loop in zip(w.out.order, loops, strict=True) if axis >= 0}
    ones = [loop for axis, loop in zip(w.out.order, loops, strict=True) if axis < 0]
    rank = len(w.batch)
    batch = [places[axis] for axis in range(rank)]
    # A vector times a matrix has no rows.
    row, column = (places[axis] if axis in places else plan.add_unit_loop(loops[0]) for axis in (rank, rank + 1))
    row, row_inside = plan.split(row, [None, rows])
    o, o_inside, c = plan.split(column, [None, blocks, w.block])
    plan.reorder(*ones, *batch, row, o, o_inside, row_inside, c)
    return plan.fuse(*ones, *batch, row, o), [o_inside, row_inside, c]


def _products(plan: Schedule, block: Loop, inside: list[Loop], cut: Cut, data: _Data) -> None:
    warps = cut.warps[0] * cut.warps[1] * cut.warps[2]
    plan.bind(block, "blockIdx.x")
    threads.share(plan, inside, warps, widest=4)
    accumulate = plan.get_sblock("accumulate")
    warp, stored = _store(plan, block, cut)
    plan.set_scope(accumulate, 0, wmma.SUMS)
    plan.compute_at(accumulate, warp, preserve_unit_loops=True)
    plan.tensorize(stored, wmma.store(data.kind))
    _multiply(plan, accumulate, cut, data)


def _store(plan: Schedule, block: Loop, cut: Cut) -> tuple[Loop, Loop]:
    """Sums of a block of threads in shared memory: the loop over its warps, and that over the pixels of a fragment."""
    sums = plan.get_sblock("sums")
    plan.set_scope(sums, 0, "shared")
    plan.compute_at(sums, block, preserve_unit_loops=True)
    n, o, y, x, c = plan.get_loops(sums)[1:]
    o, o_tile = plan.split(o, [cut.warps[0], cut.tile[0]])
    y, y_tile = plan.split(y, [cut.warps[1], cut.tile[1]])
    x, x_tile, one = plan.split(x, [cut.warps[2], cut.tile[2], cut.pixels])
    plan.reorder(n, o, y, x, o_tile, y_tile, x_tile, one, c)
    warp = plan.fuse(o, y, x)
    plan.bind(warp, "threadIdx.y")
    return warp, one


def _multiply(plan: Schedule, accumulate: Any, cut: Cut, data: _Data) -> None:
    """The loops of a warp: steps along the input channels, taps, then the fragments of its tile."""
    warps = cut.warps[0] * cut.warps[1] * cut.warps[2]
    loops = plan.get_loops(accumulate)[3:]  # of the block of threads, the image, the warp
    tile, (channel, pixel), (first, *taps, depth) = loops[:4], loops[4:6], loops[6:]
    step, inside = plan.split(first, [None, cut.chunk])
    plan.reorder(step, inside, *taps, *tile, channel, pixel, depth)
    innermost = [inside, *taps][-1]
    weights = plan.cache_read(accumulate, 0, wmma.WEIGHTS, consumer_blocks=[accumulate])
    pixels = plan.get_sblock("pixels")
    plan.compute_at(weights, innermost, preserve_unit_loops=True)
    plan.set_scope(pixels, 0, wmma.DATA)
    plan.compute_at(pixels, innermost, preserve_unit_loops=True)
    patch = threads.bring(plan, pixels, step, depth=4, warps=warps, widest=data.widest)
    if data.few:
        plan.storage_align(patch, 0, axis=-3, factor=ALIGNED // 2, offset=0)
    start = plan.decompose_reduction(accumulate, step)
    plan.tensorize(plan.get_loops(start)[-2], wmma.fill(data.kind))
    plan.tensorize(plan.get_loops(weights)[-2], wmma.load_weights(data.kind))
    plan.tensorize(plan.get_loops(pixels)[-2], data.load())
    plan.tensorize(channel, wmma.multiply_add(data.kind))
