"""Take out nodes whose output is their input."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from deburr.ir.graph import Graph
from deburr.ir.node import Node
from deburr.ir.ops import is_pure
from deburr.passes.clean.common import bypass, is_standard, remove_if_unused
from deburr.passes.core import Context, Pass


def _has_one_input(node: Node) -> bool:
    return len(node.inputs) == 1


def _keeps_dtype(node: Node) -> bool:
    return node.input(0).dtype is not None and node.get("to") == node.input(0).dtype


def _keeps_order(node: Node) -> bool:
    shape, order = node.input(0).shape, node.get("perm")
    if order is None:  # the default reverses the axes
        return shape is not None and len(shape) < 2
    return tuple(order) == tuple(range(len(order)))


def _keeps_shape(node: Node) -> bool:
    """For operators that keep the elements in order: the same dims, each a number or the same symbol, mean the same tensor."""
    before, after = node.input(0).shape, node.output().shape
    return before is not None and before == after and None not in before


def _pads_nothing(node: Node) -> bool:
    if "pads" in node.attributes:
        return not any(node.get("pads"))
    amounts = node.optional_input(1)
    return amounts is not None and amounts.array is not None and not amounts.array.any()


# Operator -> when its output 0 equals its input 0.
_RULES: Mapping[str, Callable[[Node], bool]] = {
    "Identity": _has_one_input,
    "Dropout": lambda node: True,  # is_pure rules the training mode out
    "Concat": _has_one_input,
    "Sum": _has_one_input,
    "Max": _has_one_input,
    "Min": _has_one_input,
    "Mean": _has_one_input,
    "Cast": _keeps_dtype,
    "Transpose": _keeps_order,
    "Reshape": _keeps_shape,
    "Flatten": _keeps_shape,
    "Expand": _keeps_shape,
    "Tile": _keeps_shape,
    "Pad": _pads_nothing,
}


@dataclass(frozen=True, slots=True)
class RemoveIdentity(Pass):
    """Take out nodes that hand their input on: Identity, Dropout, and casts, transposes or reshapes that change nothing."""

    name: ClassVar[str] = "remove-identity"

    def run(self, graph: Graph, context: Context) -> None:
        for node in graph.nodes:
            if is_standard(node, *_RULES) and is_pure(node, context.model) and _RULES[node.op](node):
                self._bypass(node, context)

    def _bypass(self, node: Node, context: Context) -> None:
        source, result = node.input(0), node.output()
        extra = [value for value in node.outputs[1:] if value is not None and (value.uses or value.is_output)]
        if extra:
            context.remark(node, f"its output {extra[0].name} is used as well")
        elif result.qparams is not None and result.qparams != source.qparams:
            context.remark(node, "its output is quantized unlike its input")
        elif bypass(result, source):
            remove_if_unused(node)
        else:
            context.remark(node, f"the graph output {result.name} needs a node that produces it")
