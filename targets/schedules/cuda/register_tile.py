"""The schedule of products without tensor cores: by dp4a where four bytes lie together, else one by one; float32 too.

A thread has four channels of some pixels of a row in its registers. The data of a step is in shared memory, where all threads
that differ in their channels read the same word at once; weights come as one vector of four channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from deburr.targets.kernels import layout
from deburr.targets.schedules.cuda import elementwise, tensor_core, threads
from deburr.targets.schedules.cuda.cut import PATCH_BYTES, WANTED_BLOCKS
from deburr.targets.schedules.tile import largest_divisor

if TYPE_CHECKING:
    from deburr.targets.kernels.layout import WeightLayout
    from deburr.targets.kernels.workload import Conv2d, MatMul

    Module = Any  # tvm.IRModule
    Schedule = Any  # tvm.s_tir.Schedule
    Loop = Any

VECTOR = 4  # channels of a thread
THREADS = 128
MOST_PIXELS = 8  # of a thread: 32 sums
UNROLLED = 8  # steps of the innermost sum


@dataclass(frozen=True, slots=True)
class RegisterTile:
    """What a block of threads computes: blocks of channels, rows, and threads along a row with some pixels each.

    :param chunk: steps of the outermost sum whose data is in shared memory at a time.
    """

    channels: int
    rows: int
    along: int
    pixels: int
    chunk: int

    @property
    def columns(self) -> int:
        return self.along * self.pixels

    def warps(self, block: int) -> int:
        return self.channels * self.rows * self.along * (block // VECTOR) // threads.WARP


def of_convolution(workload: Conv2d) -> RegisterTile:
    """The choice that needs no measurement."""
    w = workload
    outputs, by_output = layout.blocks(w.out_channels, w.out_block), any(layout.first_input_blocks(w))
    tile = _tile((1 if by_output else outputs, w.out_height, w.out_width), w.out_block, w.batch * (outputs if by_output else 1))
    rows = (tile.rows - 1) * w.strides[0] + (w.kernel[0] - 1) * w.dilations[0] + 1
    columns = (tile.columns - 1) * w.strides[1] + (w.kernel[1] - 1) * w.dilations[1] + 1
    size = rows * columns * w.in_block * (4 if w.dtype == "float32" else 1)
    return _with_chunk(tile, layout.input_blocks_spanned(w), size)


def of_product(workload: MatMul, parts: int, group: int) -> RegisterTile:
    """Rows of the matrix are columns of an image with one row."""
    w = workload
    tile = _tile((layout.blocks(w.columns, w.block), 1, w.rows), w.block, w.batches)
    return _with_chunk(tile, parts, tile.columns * group * (4 if w.dtype == "float32" else 1))


def _with_chunk(tile: RegisterTile, steps: int, size: int) -> RegisterTile:
    chunk = largest_divisor(steps, max(1, PATCH_BYTES // size))
    return RegisterTile(tile.channels, tile.rows, tile.along, tile.pixels, chunk)


def _tile(sizes: tuple[int, int, int], block: int, batch: int) -> RegisterTile:
    """Pixels first, as far as they leave every multiprocessor something; then rows and channels until the block is full."""
    outputs, rows, columns = sizes
    lanes = block // VECTOR
    pixels = MOST_PIXELS
    while pixels > 1 and (pixels > columns or batch * outputs * rows * columns * lanes < pixels * THREADS * WANTED_BLOCKS):
        pixels //= 2
    along = 1
    while along * lanes < THREADS and along * pixels < columns:
        along *= 2
    down = 1
    while along * down * lanes < THREADS and down * 2 <= rows:
        down *= 2
    channels = largest_divisor(outputs, max(1, THREADS // (along * down * lanes)))
    while channels * down * along * lanes % threads.WARP:  # a small image: threads that compute what is dropped
        along *= 2
    return RegisterTile(channels, down, along, pixels, 1)


def convolution(module: Module, tile: RegisterTile, weights: WeightLayout) -> Module:
    """The stages of `conv2d.define`."""
    from tvm.s_tir import Schedule

    plan = Schedule(module)
    n, o, y, x, c = plan.get_loops(plan.get_sblock("output"))
    o, o_inside = plan.split(o, [None, tile.channels])
    y, y_inside = plan.split(y, [None, tile.rows])
    x, x_inside = plan.split(x, [None, tile.columns])
    plan.reorder(n, y, x, o, o_inside, y_inside, x_inside, c)
    widest = _widest(weights)
    _products(plan, plan.fuse(n, y, x, o), [o_inside, y_inside, x_inside, c], tile, weights=weights, widest=widest)
    return plan.mod


def matrix(module: Module, workload: MatMul, tile: RegisterTile, weights: WeightLayout) -> Module:
    """The stages of `matmul.define`; what prepares a computed matrix are kernels of their own before."""
    from tvm.s_tir import Schedule

    plan = Schedule(module)
    elementwise.prepare(plan, ("pack", "column_sums", "row_sums"))
    block, inside = tensor_core.cut_rows_and_columns(plan, workload, tile.channels, tile.columns)
    widest = _widest(weights) if tensor_core.lies_in_rows(workload) else 1
    _products(plan, block, inside, tile, weights=weights, widest=widest)
    return plan.mod


def _widest(weights: WeightLayout) -> int:
    """Elements of the data in the longest vector."""
    return tensor_core.VECTOR // (4 if weights.dtype == "float32" else 1)


def _products(
    plan: Schedule, block: Loop, inside: list[Loop], tile: RegisterTile, *, weights: WeightLayout, widest: int
) -> None:
    accumulate = plan.get_sblock("accumulate")
    *outer, x, c = inside
    x, pixel = plan.split(x, [tile.along, tile.pixels])
    c, channel = plan.split(c, [None, VECTOR])
    plan.reorder(*outer, x, c, pixel, channel)
    warp, thread = plan.split(plan.fuse(*outer, x, c), [None, threads.WARP])
    warps = threads.extent(plan, warp)
    for loop, name in ((block, "blockIdx.x"), (warp, "threadIdx.y"), (thread, "threadIdx.x")):
        plan.bind(loop, name)
    plan.vectorize(channel)
    plan.unroll(pixel)
    plan.set_scope(accumulate, 0, "local")
    plan.compute_at(accumulate, thread, preserve_unit_loops=True)
    loops = plan.get_loops(accumulate)[3:]
    places, (pixel, channel), (first, *taps, group) = loops[:3], loops[3:5], loops[5:]
    step, part = plan.split(first, [None, tile.chunk])
    plan.reorder(step, part, *taps, *places, pixel, channel, group)
    vector = plan.cache_read(accumulate, 1, "local", consumer_blocks=[accumulate])
    plan.compute_at(vector, [part, *taps][-1], preserve_unit_loops=True)
    plan.vectorize(plan.fuse(*plan.get_loops(vector)[-2:]))
    threads.bring(plan, accumulate, step, depth=4, warps=warps, widest=widest)
    for loop in [part, *taps][:-1]:  # the compiler would unroll them all: thousands of instructions, and addresses for each
        plan.annotate(loop, "disable_unroll", 1)
    plan.annotate([part, *taps][-1], "pragma_unroll", UNROLLED)
    start = plan.decompose_reduction(accumulate, step)
    for loop in (pixel, channel, *plan.get_loops(start)[-2:]):
        plan.unroll(loop)
    if weights.data_shift and weights.group == 4:
        plan.tensorize(group, dp4a())


@cache
def dp4a() -> str:
    """``C += sum((A[g] - 128) * B[g])`` over four bytes; 128 comes off by turning over the highest bits."""
    from tvm.script import tirx as T  # noqa: N812 - what TVM's script parser and its users call it

    from deburr.targets.schedules.dot import register

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def description(a: T.handle, b: T.handle, c: T.handle) -> None:
        A = T.match_buffer(a, (4,), "uint8", offset_factor=4, scope="shared")
        B = T.match_buffer(b, (4,), "int8", offset_factor=4, scope="local")
        C = T.match_buffer(c, (1,), "int32", offset_factor=1, scope="local")
        with T.sblock("root"):
            T.reads(C[0], A[0:4], B[0:4])
            T.writes(C[0])
            for g in T.serial(4):
                with T.sblock("update"):
                    vg = T.axis.remap("R", [g])
                    C[0] = C[0] + T.cast(T.cast(T.bitwise_xor(A[vg], T.uint8(128)), "int8"), "int32") * T.cast(B[vg], "int32")

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def instruction(a: T.handle, b: T.handle, c: T.handle) -> None:
        A = T.match_buffer(a, (4,), "uint8", offset_factor=4, scope="shared")
        B = T.match_buffer(b, (4,), "int8", offset_factor=4, scope="local")
        C = T.match_buffer(c, (1,), "int32", offset_factor=1, scope="local")
        with T.sblock("root"):
            T.reads(C[0], A[0:4], B[0:4])
            T.writes(C[0])
            C[0] = T.call_pure_extern(
                "int32",
                "__dp4a",
                T.bitwise_xor(T.reinterpret(A.vload([0], "uint8x4"), dtype="int32"), T.int32(-2139062144)),
                T.reinterpret(B.vload([0], "int8x4"), dtype="int32"),
                C[0],
            )

    return register("deburr.dp4a", description, instruction)
