"""Nodes that are to stay float whatever the dialect says, because the user or a search wants it so.

The wish is a note on the node, as scale and zero point are notes on a value: every pass sees the same placement from then on,
until `insert-qdq` has emitted it.
"""

from __future__ import annotations

from deburr.ir.graph import Graph
from deburr.ir.node import Node
from deburr.passes.names import matching

_KEY, _FLOAT = "deburr.keep", "float"


def is_kept(node: Node) -> bool:
    """Whether the node is noted to stay float."""
    return node.metadata.get(_KEY) == _FLOAT


def nodes_named(graph: Graph, patterns: tuple[str, ...], where: str, option: str = "keep") -> dict[Node, None]:
    """The nodes that a pattern names: themselves, what they give, or a constant that they read. In graph order.

    :raises DeburrError: E203 for a pattern that matches nothing.
    """
    chosen: set[Node] = set()
    for nodes, values in matching(graph.nodes, graph.values, patterns, where, option) if patterns else ():
        chosen |= nodes
        chosen |= {value.producer for value in values if value.producer is not None}
        chosen |= {node for value in values if value.is_constant for node in value.consumers if node.graph is graph}
    return {node: None for node in graph.nodes if node in chosen} if chosen else {}


def keep(graph: Graph, patterns: tuple[str, ...], where: str) -> None:
    """Note these nodes.

    :raises DeburrError: E203 for a pattern that matches nothing.
    """
    for node in nodes_named(graph, patterns, where):
        if not is_kept(node):
            node.metadata[_KEY] = _FLOAT
            graph.touch()


def forget(graph: Graph) -> None:
    """Take all notes back."""
    for node in graph.nodes:
        if node.metadata.pop(_KEY, None) is not None:
            graph.touch()
