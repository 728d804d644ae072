"""Multiply-accumulate instructions, whatever the ISA: what the template has to know of one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deburr.targets.kernels.workload import Conv2d


@dataclass(frozen=True, slots=True)
class Dot:
    """``accumulator[lane] += sum(data[k] * weight[lane, k])`` over ``parts * group`` values of k, for `lanes` sums at once.

    :param intrinsic: its name in TVM's registry.
    :param group: consecutive input channels that lie together in the packed weight.
    :param parts: groups that one load of data serves: the loop over them is unrolled, each use takes a part of the register.
    :param pixels_inside: whether weights stay while pixels change, because a pixel's data serves several instructions.
    :param pixels: neighbours that are multiplied together, with as many lanes (`WeightLayout.pixels`).
    """

    intrinsic: str
    lanes: int
    group: int
    parts: int = 1
    pixels_inside: bool = False
    pixels: int = 1


def dot(workload: Conv2d, isa: str) -> Dot | None:
    """The instruction for a convolution, or None where LLVM's own choice is as good."""
    from deburr.targets.isa import ISAS
    from deburr.targets.kernels import layout
    from deburr.targets.schedules import arm, x86

    weights = layout.weight_layout(workload, isa)
    if ISAS[isa].architecture == "aarch64":
        return arm.dot(weights, workload)
    return x86.dot(isa, weights.group)


def describe(data: str, weight: str, lanes: int, group: int) -> Any:
    """What such an instruction computes, as TVM looks for it in a schedule: ``C[i] += sum(A[g] * B[i, g])``.

    The weight declares its strides: without them TVM accepts one that is not packed and computes garbage in silence.
    """
    from tvm.script import tirx as T  # noqa: N812 - what TVM's script parser and its users call it

    total, strides = "float32" if data == "float32" else "int32", [group, 1]

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def description(a: T.handle, b: T.handle, c: T.handle) -> None:
        A = T.match_buffer(a, (group,), data, offset_factor=1)
        B = T.match_buffer(b, (lanes, group), weight, strides=strides, offset_factor=1)
        C = T.match_buffer(c, (lanes,), total, scope="local", offset_factor=1)
        with T.sblock("root"):
            T.reads(C[0:lanes], A[0:group], B[0:lanes, 0:group])
            T.writes(C[0:lanes])
            for i, g in T.grid(lanes, group):
                with T.sblock("update"):
                    vi, vg = T.axis.remap("SR", [i, g])
                    C[vi] = C[vi] + T.cast(A[vg], total) * T.cast(B[vi, vg], total)

    return description


def register(name: str, description: object, instruction: object) -> str:
    """Make an intrinsic known to TVM; its name."""
    from tvm.s_tir import TensorIntrin

    TensorIntrin.register(name, description, instruction, override=True)
    return name
