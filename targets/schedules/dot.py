"""Multiply-accumulate instructions, whatever the ISA: what the template has to know of one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

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


def register(name: str, description: object, instruction: object) -> str:
    """Make an intrinsic known to TVM; its name."""
    from tvm.s_tir import TensorIntrin

    TensorIntrin.register(name, description, instruction, override=True)
    return name
