"""Layers whose output goes into a sum and nowhere else: they can make up for what rounding did to the other addend.

Nagel, Amjad, van Baalen, Louizos, Blankevoort: "Up or Down? Adaptive Rounding for Post-Training Quantization", ICML 2020, aim
at the layer's float output given rounded inputs; here it is the float sum.
"""

from __future__ import annotations

from collections.abc import Collection

from deburr.ir.node import Node
from deburr.ir.value import Value
from deburr.passes.linear.prefix import ancestors


def other_addend(node: Node, pending: Collection[Node]) -> Value | None:
    """What is added to the output of `node`, if nothing else reads that output and no node of `pending` leads to the addend."""
    output = node.output()
    if output.is_output or len(output.uses) != 1 or output.consumers[0].op != "Add":
        return None
    others = [value for value in output.consumers[0].inputs if value is not None and value is not output]
    if len(others) != 1 or others[0].is_constant or others[0].shape is None or others[0].shape != output.shape:
        return None
    is_settled = not ancestors(others).intersection(pending)
    return others[0] if is_settled and output.consumers[0].graph is node.graph else None
