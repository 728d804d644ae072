"""The fused groups of a lowered model in the order in which they run: what a profile calls its rows."""

from __future__ import annotations

from deburr.ir.model import Model
from deburr.ir.node import Node
from deburr.targets.kernels import winograd
from deburr.targets.kernels import workload as w
from deburr.targets.lower import dialect
from deburr.targets.lower.workloads import workload
from deburr.targets.manifest import Group

WINOGRAD = "winograd"  # in the sizes of a group: it multiplies less often than its multiply-accumulates say


def groups(lowered: Model, isa: str) -> list[Group]:
    """One for each call of a function of ours; what TVM's own converters make has none."""
    own = [node for node in lowered.graph.nodes if node.domain == dialect.DOMAIN]
    return [_group(node, isa) for node in own if not dialect.is_plain(node) and not dialect.is_view(node)]


def kind(work: w.Workload) -> str:
    """What a workload's function is called after."""
    return "Depthwise" if isinstance(work, w.Conv2d) and work.is_blocked_depthwise else type(work).__name__


def _group(node: Node, isa: str) -> Group:
    name = node.name or node.output().name
    work = workload(node)
    if work is None:
        return Group(layer=name, operator=node.op, shape="", dtype="", macs=0)
    operator = kind(work)
    if isinstance(work, w.MatMul):
        return Group(layer=name, operator=operator, shape=_product(work), dtype=work.dtype, macs=work.macs)
    if isinstance(work, w.Conv2d):
        return Group(layer=name, operator=operator, shape=_convolution(work, isa), dtype=work.dtype, macs=work.macs)
    return Group(layer=name, operator=operator, shape="", dtype=getattr(work, "dtype", ""), macs=0)


def _product(work: w.MatMul) -> str:
    """`12x 128x64 64x128`: how many, rows and depth, depth and columns."""
    text = f"{work.rows}x{work.depth} {work.depth}x{work.columns}"
    text = f"{work.batches}x {text}" if work.batches > 1 else text
    is_sum = work.add is not None or (work.float_epilogue is not None and work.float_epilogue.residual)
    return text + (" +sum" if is_sum else "")


def _convolution(work: w.Conv2d, isa: str) -> str:
    """`3x3/2 64-128 @56x56`, with the groups where there are some and the sum that is fused."""
    (height, width), stride = work.kernel, max(work.strides)
    text = f"{height}x{width}" + (f"/{stride}" if stride > 1 else "")
    text += f" {work.in_channels}-{work.out_channels} @{work.in_height}x{work.in_width}"
    size = winograd.tile_size(work, isa)
    text += f" {WINOGRAD} {size}x{size}" if size else ""
    text += " depthwise" if work.is_depthwise else f" groups={work.groups}" if work.groups > 1 else ""
    is_sum = work.add is not None or (work.float_epilogue is not None and work.float_epilogue.residual)
    return text + (" +sum" if is_sum else "")
