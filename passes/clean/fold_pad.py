"""Take a Pad with zeros into the convolutions behind it, which pad themselves.

Frameworks that pad more on one side than on the other (as "same" padding with a stride does) write a Pad of its own. It copies
a whole tensor, and stands between an activation function and the convolution that would be fused with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from deburr.ir.graph import Graph
from deburr.ir.node import Node
from deburr.ir.types import Array
from deburr.ir.value import Use
from deburr.passes.clean.common import is_standard, remove_if_unused
from deburr.passes.core import Context, Pass


@dataclass(frozen=True, slots=True)
class FoldPad(Pass):
    """Add what a Pad puts around images, if it is zeros, to the pads of each Conv behind it."""

    name: ClassVar[str] = "fold-pad"

    def run(self, graph: Graph, context: Context) -> None:
        for node in graph.nodes:
            if not is_standard(node, "Pad"):
                continue
            pads = _pads(node)
            if isinstance(pads, str):
                context.remark(node, pads)
                continue
            for use in node.output().uses:
                reason = _refusal(use, node)
                if reason:
                    context.remark(use.node, f"the Pad in front of it stays: {reason}")
                else:
                    _fold(use.node, node, pads)
            remove_if_unused(node)


def _pads(node: Node) -> list[int] | str:
    """Begins and ends of the axes behind channels, as ``pads`` of Conv has them; or why a Conv cannot do the same."""
    if node.get("mode", "constant") != "constant":
        return f"convolutions pad with zeros, its mode is {node.get('mode')!r}"
    rank = None if node.input(0).shape is None else len(node.input(0).shape or ())
    if rank is None or rank < 3:
        return "it pads no image"
    given, axes, number = _constant(node, 1, "pads"), _constant(node, 3, ""), _constant(node, 2, "value")
    if given is None or (number is None and node.optional_input(2) is not None):
        return "how much it pads, or with what, is not known before the model runs"
    if axes is None and node.optional_input(3) is not None:
        return "which axes it pads is not known before the model runs"
    if number is not None and number.any():
        return "convolutions pad with zeros, it does with another number"
    begins, ends = np.zeros(rank, np.int64), np.zeros(rank, np.int64)
    places = np.arange(rank) if axes is None else axes.astype(np.int64) % rank
    begins[places], ends[places] = np.split(given.astype(np.int64), 2)
    if begins[:2].any() or ends[:2].any() or min(begins.min(), ends.min()) < 0:
        return "it pads samples or channels, or cuts off"
    return [*map(int, begins[2:]), *map(int, ends[2:])]


def _constant(node: Node, index: int, attribute: str) -> Array | None:
    """An input, or what older opsets have as an attribute; None where it is computed or missing."""
    value = node.optional_input(index)
    if value is not None:
        return value.array
    return np.asarray(node.get(attribute)) if attribute in node.attributes else None


def _refusal(use: Use, pad: Node) -> str:
    """Why the padding cannot be this reader's, or nothing."""
    node = use.node
    if node.graph is not pad.graph or use.index != 0 or not is_standard(node, "Conv"):
        return "only Conv pads with zeros"
    if node.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return "its own padding is automatic: run explicit-padding first"
    return ""


def _fold(node: Node, pad: Node, pads: list[int]) -> None:
    own = node.get("pads") or [0] * len(pads)
    node.set_attribute("pads", [mine + its for mine, its in zip(own, pads, strict=True)])
    node.set_attribute("auto_pad", None)
    node.set_input(0, pad.input(0))
