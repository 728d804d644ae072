"""x86 multiply-accumulate instructions as TVM tensor intrinsics, registered on first use.

The weight operand declares its strides: without them TVM accepts a weight that is not packed and computes garbage in silence.
"""

from __future__ import annotations

from functools import cache

from deburr.targets.schedules.dot import Dot, describe, register


def dot(isa: str, group: int) -> Dot | None:
    """The instruction for a weight layout with `group`, or None where LLVM's own choice is as good."""
    if group == 4:
        lanes = 16 if isa == "avx512vnni" else 8
        return Dot(_vpdpbusd(lanes), lanes, 4)
    if isa != "generic" and group == 2:
        return Dot(_vpmaddwd(), 8, 2)
    return None


@cache
def _vpdpbusd(lanes: int) -> str:
    """VNNI: 16 lanes (AVX-512) or 8 of four u8 x s8, int32 sums that never saturate (the form without "s")."""
    from tvm.script import tirx as T  # noqa: N812 - what TVM's script parser and its users call it

    # The same name for AVX-VNNI: LLVM picks the encoding that the CPU has.
    name, sums = f"llvm.x86.avx512.vpdpbusd.{32 * lanes}", f"int32x{lanes}"

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def instruction(a: T.handle, b: T.handle, c: T.handle) -> None:
        A = T.match_buffer(a, (4,), "uint8", offset_factor=1)
        B = T.match_buffer(b, (lanes, 4), "int8", strides=[4, 1], offset_factor=1)
        C = T.match_buffer(c, (lanes,), "int32", scope="local", offset_factor=1)
        with T.sblock("root"):
            T.reads(C[0:lanes], A[0:4], B[0:lanes, 0:4])
            T.writes(C[0:lanes])
            four = T.reinterpret(A.vload([0], "uint8x4"), dtype="int32")
            C[T.ramp(T.int32(0), 1, lanes)] = T.call_llvm_pure_intrin(
                T.llvm_lookup_intrinsic_id(name),
                C.vload([0], dtype=sums),
                T.reinterpret(T.broadcast(four, lanes), dtype=f"uint8x{4 * lanes}"),
                B.vload([0, 0], dtype=f"int8x{4 * lanes}"),
                dtype=sums,
            )

    return register(f"deburr.vpdpbusd_{lanes}x4", describe("uint8", "int8", lanes, 4), instruction)


@cache
def _vpmaddwd() -> str:
    """AVX2: 8 lanes of two s16 x s16; with u8 and s8 values the sum of two products never overflows."""
    from tvm.script import tirx as T  # noqa: N812 - what TVM's script parser and its users call it

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def instruction(a: T.handle, b: T.handle, c: T.handle) -> None:
        A = T.match_buffer(a, (2,), "int16", offset_factor=1)
        B = T.match_buffer(b, (8, 2), "int16", strides=[2, 1], offset_factor=1)
        C = T.match_buffer(c, (8,), "int32", scope="local", offset_factor=1)
        with T.sblock("root"):
            T.reads(C[0:8], A[0:2], B[0:8, 0:2])
            T.writes(C[0:8])
            pair = T.reinterpret(A.vload([0], "int16x2"), dtype="int32")
            C[T.ramp(T.int32(0), 1, 8)] = C.vload([0], dtype="int32x8") + T.call_llvm_pure_intrin(
                T.llvm_lookup_intrinsic_id("llvm.x86.avx2.pmadd.wd"),
                T.reinterpret(T.broadcast(pair, 8), dtype="int16x16"),
                B.vload([0, 0], dtype="int16x16"),
                dtype="int32x8",
            )

    return register("deburr.vpmaddwd_8x2", describe("int16", "int16", 8, 2), instruction)
