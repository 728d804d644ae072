"""Write auto_pad out as pads.

The rules are the specification's (onnx Operators.md: Conv, ConvTranspose, MaxPool, AveragePool, LpPool): with SAME_UPPER and
SAME_LOWER the output has ceil(input / stride) elements along an axis, ConvTranspose's has input * stride; an odd element of
padding goes to the end for SAME_UPPER and to the begin for SAME_LOWER; VALID pads nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from deburr.ir.graph import Graph
from deburr.ir.node import Node
from deburr.passes.clean.common import is_standard
from deburr.passes.core import Context, Pass

_WEIGHTED = ("Conv", "ConvTranspose")
_POOLS = ("MaxPool", "AveragePool", "LpPool")


@dataclass(frozen=True, slots=True)
class ExplicitPadding(Pass):
    """Write auto_pad=SAME_UPPER, SAME_LOWER or VALID out as pads."""

    name: ClassVar[str] = "explicit-padding"

    def run(self, graph: Graph, context: Context) -> None:
        for node in graph.nodes:
            if is_standard(node, *_WEIGHTED, *_POOLS) and node.get("auto_pad", "NOTSET") != "NOTSET":
                reason = _rewrite(node)
                if reason:
                    context.remark(node, reason)


@dataclass(frozen=True, slots=True)
class _Axis:
    """One spatial axis. `size` is the input's, None where it is not known; `extent` the kernel's, dilated."""

    size: int | None
    extent: int
    stride: int
    output_padding: int


def _rewrite(node: Node) -> str:
    """Replace auto_pad by pads, or say why that cannot be."""
    mode, axes = node.get("auto_pad"), _axes(node)
    if axes is None:
        return "the size of its kernel is not known"
    if mode not in ("VALID", "SAME_UPPER", "SAME_LOWER"):
        return f"its auto_pad is {mode!r}"
    if "output_shape" in node.attributes:
        return "its output_shape decides about the padding"
    if mode != "VALID" and node.op in _POOLS and any(dilation != 1 for dilation in node.get("dilations", ())):
        return "of a dilated window, the specification and ONNX Runtime disagree about the padding"
    totals = [0] * len(axes)
    if mode != "VALID":
        found = [_transposed_total(axis) if node.op == "ConvTranspose" else _same_total(axis) for axis in axes]
        if None in found:
            return "the sizes of its input are not known"
        totals = [total for total in found if total is not None]
    if min(totals) < 0 and node.op == "ConvTranspose":
        return "its stride is larger than its kernel"
    if min(totals) < 0 and node.op in ("AveragePool", "LpPool"):  # ONNX Runtime crops what no window needs, at both ends
        return "where its stride skips elements, the specification and ONNX Runtime disagree about the first window"
    if node.get("ceil_mode", 0) and not _covers(axes, totals):
        return "with ceil_mode, the specification and ONNX Runtime disagree about the size of its output"
    totals = [max(total, 0) for total in totals]
    small = [total // 2 for total in totals]
    large = [total - half for total, half in zip(totals, small, strict=True)]
    node.set_attribute("pads", (*large, *small) if mode == "SAME_LOWER" else (*small, *large))
    node.set_attribute("auto_pad", None)
    return ""


def _axes(node: Node) -> list[_Axis] | None:
    kernel = node.get("kernel_shape")
    if kernel is None and node.op in _WEIGHTED:
        weights = node.input(1).static_shape
        kernel = weights[2:] if weights is not None else None
    if not kernel:
        return None
    rank = len(kernel)
    shape = node.input(0).shape or (None,) * (rank + 2)
    sizes = [dim if isinstance(dim, int) else None for dim in shape[2:]]
    strides, dilations = node.get("strides") or [1] * rank, node.get("dilations") or [1] * rank
    extents = [(size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True)]
    output_padding = node.get("output_padding") or [0] * rank
    return [_Axis(*axis) for axis in zip(sizes, extents, strides, output_padding, strict=True)]


def _same_total(axis: _Axis) -> int | None:
    """Padding along an axis so that the output has ceil(size / stride) elements; negative where a stride skips elements."""
    if axis.stride == 1:
        return axis.extent - 1
    if axis.size is None:
        return None
    return (-(-axis.size // axis.stride) - 1) * axis.stride + axis.extent - axis.size


def _transposed_total(axis: _Axis) -> int:
    """What has to be cut off so that the output has size * stride elements; the size itself drops out."""
    return axis.extent + axis.output_padding - axis.stride


def _covers(axes: list[_Axis], totals: list[int]) -> bool:
    """The windows end exactly with the padded input, so that rounding up or down gives the same output."""
    return all(
        axis.size is not None and (axis.size + max(total, 0) - axis.extent) % axis.stride == 0
        for axis, total in zip(axes, totals, strict=True)
    )
