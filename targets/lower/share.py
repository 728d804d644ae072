"""Nodes of ours that compute the same from the same become one: the tables of one tensor for two readers, say.

TVM would see it too, and call less than the manifest lists.
"""

from __future__ import annotations

from typing import Any

from deburr.ir.graph import Graph
from deburr.ir.node import Node
from deburr.ir.value import Value
from deburr.targets.lower import dialect


def share(graph: Graph) -> None:
    """Merge equal nodes, first to last: readers of what was merged may be equal then."""
    first: dict[object, Node] = {}
    for node in list(graph.nodes):
        if node.domain != dialect.DOMAIN or not any(len(value.uses) > 1 for value in node.inputs if value is not None):
            continue
        same = first.setdefault(_key(node), node)
        if same is not node:
            dialect.replace(node, same.output())


def _key(node: Node) -> object:
    attributes = tuple(sorted((name, repr(value)) for name, value in node.attributes.items()))
    return node.op, attributes, str(node.output().type), tuple(map(_operand, node.inputs))


def _operand(value: Value | None) -> Any:
    """A tensor is itself; a constant is what it holds."""
    array = None if value is None else value.array
    return value if array is None else (array.shape, array.dtype.str, array.tobytes())
