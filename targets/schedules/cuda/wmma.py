"""Tensor-core instructions as TVM tensor intrinsics, registered on first use: nvcuda::wmma on 32 channels x 8 pixels x 16.

Two kinds: s8 with sums of int32, and float16 with sums of float32, named by the type that is multiplied.

Weights are the first matrix and pixels the second, because a row of an image is better cut into eights than into thirty-twos.
Both have the 16 that are summed next to each other. The activations are u8 and the weights s8, where the instruction wants one
type: 128 comes off the activations by turning over their highest bits in registers, one instruction for a whole fragment, and
the bias makes up for it (`WeightLayout.data_shift`).
"""

from __future__ import annotations

from functools import cache
from typing import Any

CHANNELS, PIXELS, DEPTH = 32, 8, 16  # m, n, k
SHAPE = (CHANNELS, PIXELS, DEPTH)
SUMS_OF = {"int8": "int32", "float16": "float32"}
WEIGHTS, DATA, SUMS = "wmma.matrix_a", "wmma.matrix_b", "wmma.accumulator"

# The fragment is of signed bytes, the memory of unsigned ones.
_SIGNED = """
__device__ __forceinline__ const signed char *deburr_signed(const unsigned char *data) {
  return reinterpret_cast<const signed char *>(data);
}
"""
_SHIFT = """
template <typename Fragment> __device__ __forceinline__ void deburr_shift(Fragment *fragments, int index) {
  unsigned *words = reinterpret_cast<unsigned *>(fragments[index].x);
#pragma unroll
  for (int i = 0; i < fragments[index].num_elements / 4; ++i) words[i] ^= 0x80808080u;
}
"""


@cache
def fill(kind: str) -> str:
    """Sums of 0."""
    from tvm.script import tirx as T  # noqa: N812 - what TVM's script parser and its users call it

    sums = SUMS_OF[kind]

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def description(c: T.handle) -> None:
        C = T.match_buffer(c, (32, 8), sums, align=64, offset_factor=8, scope=SUMS)
        with T.sblock("root"):
            T.reads()
            T.writes(C[0:32, 0:8])
            for i, j in T.grid(32, 8):
                with T.sblock("init"):
                    vi, vj = T.axis.remap("SS", [i, j])
                    C[vi, vj] = T.cast(0, sums)

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def instruction(c: T.handle) -> None:
        d1, d0 = T.int32(), T.int32()
        C = T.match_buffer(c, (32, 8), sums, align=64, offset_factor=8, scope=SUMS, strides=[d1, d0])
        with T.sblock("root"):
            T.reads()
            T.writes(C[0:32, 0:8])
            T.evaluate(T.tvm_fill_fragment(C.data, 32, 8, 16, _index(C, d1, 32, 8), T.cast(0, sums), dtype="void"))

    return _register(f"deburr.wmma_fill_{kind}", description, instruction)


@cache
def load_weights(kind: str) -> str:
    """A fragment of packed weights, [32 channels, 16 summed], straight from global memory, where it lies in one piece."""
    from tvm.script import tirx as T  # noqa: N812

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def description(a: T.handle, c: T.handle) -> None:
        A = T.match_buffer(a, (32, 16), kind, align=64, offset_factor=16, strides=[16, 1])
        C = T.match_buffer(c, (32, 16), kind, align=64, offset_factor=16, scope=WEIGHTS)
        with T.sblock("root"):
            T.reads(A[0:32, 0:16])
            T.writes(C[0:32, 0:16])
            for i, j in T.grid(32, 16):
                with T.sblock("load"):
                    vi, vj = T.axis.remap("SS", [i, j])
                    C[vi, vj] = A[vi, vj]

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def instruction(a: T.handle, c: T.handle) -> None:
        d1, d0 = T.int32(), T.int32()
        A = T.match_buffer(a, (32, 16), kind, align=64, offset_factor=16, strides=[16, 1])
        C = T.match_buffer(c, (32, 16), kind, align=64, offset_factor=16, scope=WEIGHTS, strides=[d1, d0])
        with T.sblock("root"):
            T.reads(A[0:32, 0:16])
            T.writes(C[0:32, 0:16])
            T.evaluate(
                T.tvm_load_matrix_sync(
                    C.data, 32, 8, 16, _index(C, d1, 32, 16), A.access_ptr("r", ptr_type=kind), 16, "row_major", dtype="void"
                )
            )

    return _register(f"deburr.wmma_load_weights_{kind}", description, instruction)


@cache
def load_data(stride: int) -> str:
    """A fragment of u8 pixels out of shared memory, [8 pixels `stride` apart, 16 summed], less 128."""
    from tvm.script import tirx as T  # noqa: N812

    rows = 7 * stride + 1

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def description(a: T.handle, c: T.handle) -> None:
        s1 = T.int32()
        A = T.match_buffer(a, (rows, 16), "uint8", align=64, offset_factor=16, scope="shared", strides=[s1, 1])
        C = T.match_buffer(c, (8, 16), "int8", align=64, offset_factor=16, scope=DATA)
        with T.sblock("root"):
            T.reads(A[0:rows, 0:16])
            T.writes(C[0:8, 0:16])
            for i, j in T.grid(8, 16):
                with T.sblock("load"):
                    vi, vj = T.axis.remap("SS", [i, j])
                    C[vi, vj] = T.cast(T.bitwise_xor(A[vi * stride, vj], T.uint8(128)), "int8")

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def instruction(a: T.handle, c: T.handle) -> None:
        s1, d1, d0 = T.int32(), T.int32(), T.int32()
        A = T.match_buffer(a, (rows, 16), "uint8", align=64, offset_factor=16, scope="shared", strides=[s1, 1])
        C = T.match_buffer(c, (8, 16), "int8", align=64, offset_factor=16, scope=DATA, strides=[d1, d0])
        with T.sblock("root"):
            T.reads(A[0:rows, 0:16])
            T.writes(C[0:8, 0:16])
            T.evaluate(
                T.tvm_load_matrix_sync(
                    C.data, 32, 8, 16, _index(C, d1, 8, 16),
                    T.cuda.func_call("deburr_signed", A.access_ptr("r"), source_code=_SIGNED, return_type="handle"),
                    s1 * stride, "col_major", dtype="void",
                )
            )  # fmt: skip
            T.evaluate(T.cuda.func_call("deburr_shift", C.data, _index(C, d1, 8, 16), source_code=_SHIFT))

    return _register(f"deburr.wmma_load_data_{stride}", description, instruction)


@cache
def load_half_data(stride: int) -> str:
    """As `load_data`, of float16 as it is."""
    from tvm.script import tirx as T  # noqa: N812

    rows = 7 * stride + 1

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def description(a: T.handle, c: T.handle) -> None:
        s1 = T.int32()
        A = T.match_buffer(a, (rows, 16), "float16", align=64, offset_factor=16, scope="shared", strides=[s1, 1])
        C = T.match_buffer(c, (8, 16), "float16", align=64, offset_factor=16, scope=DATA)
        with T.sblock("root"):
            T.reads(A[0:rows, 0:16])
            T.writes(C[0:8, 0:16])
            for i, j in T.grid(8, 16):
                with T.sblock("load"):
                    vi, vj = T.axis.remap("SS", [i, j])
                    C[vi, vj] = A[vi * stride, vj]

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def instruction(a: T.handle, c: T.handle) -> None:
        s1, d1, d0 = T.int32(), T.int32(), T.int32()
        A = T.match_buffer(a, (rows, 16), "float16", align=64, offset_factor=16, scope="shared", strides=[s1, 1])
        C = T.match_buffer(c, (8, 16), "float16", align=64, offset_factor=16, scope=DATA, strides=[d1, d0])
        with T.sblock("root"):
            T.reads(A[0:rows, 0:16])
            T.writes(C[0:8, 0:16])
            T.evaluate(
                T.tvm_load_matrix_sync(
                    C.data, 32, 8, 16, _index(C, d1, 8, 16), A.access_ptr("r"), s1 * stride, "col_major", dtype="void"
                )
            )

    return _register(f"deburr.wmma_load_half_data_{stride}", description, instruction)


@cache
def load_half_neighbours(stride: int, channels: int) -> str:
    """As `load_half_data`, where a pixel has fewer channels than are summed: those of its neighbours follow."""
    from tvm.script import tirx as T  # noqa: N812

    columns = 7 * stride + 16 // channels

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def description(a: T.handle, c: T.handle) -> None:
        A = T.match_buffer(a, (columns, channels), "float16", align=64, offset_factor=8, scope="shared", strides=[channels, 1])
        C = T.match_buffer(c, (8, 16), "float16", align=64, offset_factor=16, scope=DATA)
        with T.sblock("root"):
            T.reads(A[0:columns, 0:channels])
            T.writes(C[0:8, 0:16])
            for i, j in T.grid(8, 16):
                with T.sblock("load"):
                    vi, vj = T.axis.remap("SS", [i, j])
                    C[vi, vj] = A[vi * stride + vj // channels, vj % channels]

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def instruction(a: T.handle, c: T.handle) -> None:
        d1, d0 = T.int32(), T.int32()
        A = T.match_buffer(a, (columns, channels), "float16", align=64, offset_factor=8, scope="shared", strides=[channels, 1])
        C = T.match_buffer(c, (8, 16), "float16", align=64, offset_factor=16, scope=DATA, strides=[d1, d0])
        with T.sblock("root"):
            T.reads(A[0:columns, 0:channels])
            T.writes(C[0:8, 0:16])
            T.evaluate(
                T.tvm_load_matrix_sync(
                    C.data, 32, 8, 16, _index(C, d1, 8, 16), A.access_ptr("r"), stride * channels, "col_major", dtype="void"
                )
            )

    return _register(f"deburr.wmma_load_half_neighbours_{stride}_{channels}", description, instruction)


@cache
def multiply_add(kind: str) -> str:
    """``C[channel, pixel] += sum(A[channel, k] * B[pixel, k])``."""
    from tvm.script import tirx as T  # noqa: N812

    sums = SUMS_OF[kind]

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def description(a: T.handle, b: T.handle, c: T.handle) -> None:
        A = T.match_buffer(a, (32, 16), kind, align=64, offset_factor=16, scope=WEIGHTS)
        B = T.match_buffer(b, (8, 16), kind, align=64, offset_factor=16, scope=DATA)
        C = T.match_buffer(c, (32, 8), sums, align=64, offset_factor=8, scope=SUMS)
        with T.sblock("root"):
            T.reads(C[0:32, 0:8], A[0:32, 0:16], B[0:8, 0:16])
            T.writes(C[0:32, 0:8])
            for i, j, k in T.grid(32, 8, 16):
                with T.sblock("update"):
                    vi, vj, vk = T.axis.remap("SSR", [i, j, k])
                    C[vi, vj] = C[vi, vj] + T.cast(A[vi, vk], sums) * T.cast(B[vj, vk], sums)

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def instruction(a: T.handle, b: T.handle, c: T.handle) -> None:
        a1, a0, b1, b0, c1, c0 = T.int32(), T.int32(), T.int32(), T.int32(), T.int32(), T.int32()
        A = T.match_buffer(a, (32, 16), kind, align=64, offset_factor=16, scope=WEIGHTS, strides=[a1, a0])
        B = T.match_buffer(b, (8, 16), kind, align=64, offset_factor=16, scope=DATA, strides=[b1, b0])
        C = T.match_buffer(c, (32, 8), sums, align=64, offset_factor=8, scope=SUMS, strides=[c1, c0])
        with T.sblock("root"):
            T.reads(C[0:32, 0:8], A[0:32, 0:16], B[0:8, 0:16])
            T.writes(C[0:32, 0:8])
            T.evaluate(
                T.tvm_mma_sync(
                    C.data, _index(C, c1, 32, 8), A.data, _index(A, a1, 32, 16), B.data, _index(B, b1, 8, 16),
                    C.data, _index(C, c1, 32, 8), dtype="void",
                )
            )  # fmt: skip

    return _register(f"deburr.wmma_multiply_add_{kind}", description, instruction)


@cache
def store(kind: str) -> str:
    """Sums into shared memory, a pixel's channels next to each other."""
    from tvm.script import tirx as T  # noqa: N812

    sums = SUMS_OF[kind]

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def description(a: T.handle, c: T.handle) -> None:
        s1 = T.int32()
        A = T.match_buffer(a, (32, 8), sums, align=64, offset_factor=8, scope=SUMS)
        C = T.match_buffer(c, (8, 32), sums, align=64, offset_factor=8, scope="shared", strides=[s1, 1])
        with T.sblock("root"):
            T.reads(A[0:32, 0:8])
            T.writes(C[0:8, 0:32])
            for i, j in T.grid(8, 32):
                with T.sblock("store"):
                    vi, vj = T.axis.remap("SS", [i, j])
                    C[vi, vj] = A[vj, vi]

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def instruction(a: T.handle, c: T.handle) -> None:
        s1, d1, d0 = T.int32(), T.int32(), T.int32()
        A = T.match_buffer(a, (32, 8), sums, align=64, offset_factor=8, scope=SUMS, strides=[d1, d0])
        C = T.match_buffer(c, (8, 32), sums, align=64, offset_factor=8, scope="shared", strides=[s1, 1])
        with T.sblock("root"):
            T.reads(A[0:32, 0:8])
            T.writes(C[0:8, 0:32])
            T.evaluate(
                T.tvm_store_matrix_sync(
                    A.data, 32, 8, 16, _index(A, d1, 32, 8), C.access_ptr("w", ptr_type=sums), s1, "col_major", dtype="void"
                )
            )

    return _register(f"deburr.wmma_store_{kind}", description, instruction)


def _index(fragment: Any, stride: Any, rows: int, columns: int) -> Any:
    """Which of its buffer's fragments one is."""
    row, rest = fragment.elem_offset // stride // rows, fragment.elem_offset % stride
    return row * (stride // columns) + rest // columns


def _register(name: str, description: object, instruction: object) -> str:
    from deburr.targets.schedules.dot import register

    return register(name, description, instruction)
