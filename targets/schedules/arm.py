"""aarch64 multiply-accumulate instructions as TVM tensor intrinsics, registered on first use.

One load brings the activations of a pixel for several instructions, each of which takes one lane of it ("by element"): a
broadcast would cost a vector operation for every multiplication of a small tile. As on x86, the weight declares its strides.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from deburr.targets.schedules.dot import Dot, describe, register

if TYPE_CHECKING:
    from deburr.targets.kernels.layout import WeightLayout
    from deburr.targets.kernels.workload import Conv2d

LANES = 4  # int32 or float32 in a register; of float16 it holds twice as many


def dot(weights: WeightLayout, workload: Conv2d) -> Dot | None:
    """The instruction for a weight layout, or None where LLVM's own choice is as good (no whole register of activations)."""
    in_block, out_block = workload.in_block, workload.out_block
    if weights.pixels == 2:
        return Dot(_usmmla(workload.strides[1]), 2, 8, parts=2, pixels_inside=True, pixels=2)
    parts, lanes = {"int8": (4, 4), "int16": (8, 4), "float16": (8, 8), "float32": (4, 4)}[weights.dtype]
    parts = 1 if weights.taps > 1 else min(parts, in_block // weights.group)
    if out_block % lanes or (in_block % (parts * weights.group) and not weights.taps > 1) or parts == 3:
        return None
    intrinsic = _by_element(weights.data_dtype, weights.dtype, lanes, weights.group, parts)
    return Dot(intrinsic, lanes, weights.group, parts, pixels_inside=True)


@cache
def _by_element(data: str, weight: str, lanes: int, group: int, parts: int) -> str:
    """``C[lane] += sum(A[g] * B[lane, g])`` over g in `group`.

    A lies in a register's worth of data, ``parts * group`` values that start at a multiple of that many. All of it is loaded,
    and which part of it A is must come out as a number once the loop over the parts is unrolled: instructions hold it. A single
    part may start anywhere.
    """
    from tvm.script import tirx as T  # noqa: N812 - what TVM's script parser and its users call it

    total = _total(data)
    multiply_add = _MULTIPLY_ADD[data, weight]
    strides, size = [group, 1], parts * group
    unit = size if parts > 1 else 1  # where the load starts is a multiple of it
    wide = f"{data}x{size}"

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def instruction(a: T.handle, b: T.handle, c: T.handle) -> None:
        A = T.match_buffer(a, (group,), data, offset_factor=1)
        B = T.match_buffer(b, (lanes, group), weight, strides=strides, offset_factor=1)
        C = T.match_buffer(c, (lanes,), total, scope="local", offset_factor=1)
        with T.sblock("root"):
            T.reads(C[0:lanes], A[0:group], B[0:lanes, 0:group])
            T.writes(C[0:lanes])
            C[T.ramp(T.int32(0), 1, lanes)] = multiply_add(
                C.vload([0], dtype=f"{total}x{lanes}"),
                A.vload([0 - T.floormod(A.elem_offset, unit)], dtype=wide),
                B.vload([0, 0], dtype=f"{weight}x{lanes * group}"),
                T.floormod(T.floordiv(A.elem_offset, group), parts),
                size,
            )

    description = describe(data, weight, lanes, group) if group > 1 else _single_description(data, weight, lanes)
    return register(f"deburr.{data}_{weight}_{lanes}x{group}_of_{parts}", description, instruction)


def _single_description(data: str, weight: str, lanes: int) -> Any:
    """The same for a group of 1, whose loop of one turn stands outside: TVM drops its axis from the block that it compares."""
    from tvm.script import tirx as T  # noqa: N812

    total = _total(data)

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def description(a: T.handle, b: T.handle, c: T.handle) -> None:
        A = T.match_buffer(a, (1,), data, offset_factor=1)
        B = T.match_buffer(b, (lanes, 1), weight, strides=[1, 1], offset_factor=1)
        C = T.match_buffer(c, (lanes,), total, scope="local", offset_factor=1)
        with T.sblock("root"):
            T.reads(C[0:lanes], A[0:1], B[0:lanes, 0:1])
            T.writes(C[0:lanes])
            for i in T.serial(0, lanes):
                with T.sblock("update"):
                    vi = T.axis.spatial(lanes, i)
                    C[vi] = C[vi] + T.cast(A[0], total) * T.cast(B[vi, 0], total)

    return description


def _total(data: str) -> str:
    """The type of a sum."""
    return data if data in ("float16", "float32") else "int32"


def _sdot(total: Any, data: Any, weights: Any, k: Any, size: int) -> Any:
    return _call("int32x4", "llvm.aarch64.neon.sdot.v4i32.v16i8", total, weights, _four(data, k, size))


def _usdot(total: Any, data: Any, weights: Any, k: Any, size: int) -> Any:
    return _call("int32x4", "llvm.aarch64.neon.usdot.v4i32.v16i8", total, _four(data, k, size), weights)


def _smlal(total: Any, data: Any, weights: Any, k: Any, size: int) -> Any:
    return total + _call("int32x4", "llvm.aarch64.neon.smull.v4i32", weights, _lane(data, k, size))


def _fmla(total: Any, data: Any, weights: Any, k: Any, size: int) -> Any:
    return _call("float32x4", "llvm.fma", weights, _lane(data, k, size), total)


def _fmla_half(total: Any, data: Any, weights: Any, k: Any, size: int) -> Any:
    return _call("float16x8", "llvm.fma", weights, _lane(data, k, size, 8), total)


def _four(data: Any, k: Any, size: int) -> Any:
    """Bytes 4 k to 4 k + 3 of a vector of `size`, four times."""
    from tvm.script import tirx as T  # noqa: N812

    words = size // 4
    if words == 1:
        same = T.broadcast(T.reinterpret(data, dtype="int32"), LANES)
    else:
        same = _lane(T.reinterpret(data, dtype=f"int32x{words}"), k, words)
    return T.reinterpret(same, dtype="int8x16")


def _lane(vector: Any, k: Any, size: int, lanes: int = LANES) -> Any:
    """Element `k` of a vector of `size`, once for each lane."""
    from tvm import tirx

    # TVM wants no more elements out of a shuffle than go in.
    return tirx.Shuffle([vector] * max(1, lanes // size), [k] * lanes)


def _call(dtype: str, name: str, *operands: Any) -> Any:
    from tvm import tirx

    return tirx.call_llvm_pure_intrin(dtype, name, *operands)


_MULTIPLY_ADD: dict[tuple[str, str], Callable[[Any, Any, Any, Any, int], Any]] = {
    ("int8", "int8"): _sdot,
    ("uint8", "int8"): _usdot,
    ("int16", "int16"): _smlal,
    ("float16", "float16"): _fmla_half,
    ("float32", "float32"): _fmla,
}


@cache
def _usmmla(stride: int) -> str:
    """``C[p, o] += sum(A[p * stride, k] * B[o, k])`` over eight k, for two pixels and two channels: i8mm's u8 x s8.

    A's eight values are half of a register's worth of a pixel; as in `_by_element`, all of it is loaded.
    """
    from tvm.script import tirx as T  # noqa: N812

    rows = stride + 1

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def description(a: T.handle, b: T.handle, c: T.handle) -> None:
        s0 = T.int32()
        A = T.match_buffer(a, (rows, 8), "uint8", strides=[s0, 1], offset_factor=1)
        B = T.match_buffer(b, (2, 8), "int8", strides=[8, 1], offset_factor=1)
        C = T.match_buffer(c, (2, 2), "int32", strides=[2, 1], scope="local", offset_factor=1)
        with T.sblock("root"):
            T.reads(C[0:2, 0:2], A[0:rows, 0:8], B[0:2, 0:8])
            T.writes(C[0:2, 0:2])
            for p, o, k in T.grid(2, 2, 8):
                with T.sblock("update"):
                    vp, vo, vk = T.axis.remap("SSR", [p, o, k])
                    C[vp, vo] = C[vp, vo] + T.cast(A[vp * stride, vk], "int32") * T.cast(B[vo, vk], "int32")

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def instruction(a: T.handle, b: T.handle, c: T.handle) -> None:
        s0 = T.int32()
        A = T.match_buffer(a, (rows, 8), "uint8", strides=[s0, 1], offset_factor=1)
        B = T.match_buffer(b, (2, 8), "int8", strides=[8, 1], offset_factor=1)
        C = T.match_buffer(c, (2, 2), "int32", strides=[2, 1], scope="local", offset_factor=1)
        with T.sblock("root"):
            T.reads(C[0:2, 0:2], A[0:rows, 0:8], B[0:2, 0:8])
            T.writes(C[0:2, 0:2])
            C[0, T.ramp(T.int32(0), 1, 4)] = _pair(
                C.vload([0, 0], dtype="int32x4"),
                A.vload([0, 0 - T.floormod(A.elem_offset, 16)], dtype="uint8x16"),
                A.vload([stride, 0 - T.floormod(A.elem_offset, 16)], dtype="uint8x16"),
                B.vload([0, 0], dtype="int8x16"),
                T.floordiv(T.floormod(A.elem_offset, 16), 8),
            )

    return register(f"deburr.usmmla_2x2x8_stride{stride}", description, instruction)


def _pair(total: Any, first: Any, second: Any, weights: Any, half: Any) -> Any:
    """usmmla of one half of two pixels' data."""
    from tvm import tirx
    from tvm.script import tirx as T  # noqa: N812

    halves = [T.reinterpret(data, dtype="int64x2") for data in (first, second)]
    both = T.reinterpret(tirx.Shuffle(halves, [half, half + 2]), dtype="int8x16")
    return _call("int32x4", "llvm.aarch64.neon.usmmla.v4i32.v16i8", total, both, weights)
