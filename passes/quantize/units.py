"""Units: what becomes integers, or stays float, together; and which of them cost most.

A weighted operator left in float gains little while its data goes through a quantizer for the sake of another one. So those
that read one quantizer form a unit, with the arithmetic that gives what it quantizes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from deburr.ir.graph import Graph
from deburr.ir.node import Node
from deburr.ir.value import Value
from deburr.passes.core import Context
from deburr.passes.quantize.dialects import Role, find_dialect
from deburr.passes.quantize.placement import Placement, place
from deburr.passes.quantize.probe import decibels
from deburr.passes.quantize.sensitivity import sensitivities
from deburr.passes.quantize.weighted import is_product


@dataclass(frozen=True)
class Unit:
    """`outputs` name its nodes in every copy of the model; `labels` are what a reader knows the nodes by."""

    outputs: tuple[str, ...]
    labels: tuple[str, ...]
    noise: float | None = None  # relative power at the outputs of the model; None where it could not be measured

    @property
    def cost(self) -> str:
        """For a remark."""
        if self.noise is None:
            return "what it costs alone was not measured"
        return f"rounded alone, it leaves an SQNR of {decibels(self.noise):.1f} dB"


def ranked_units(graph: Graph, context: Context, dialect: str) -> list[Unit]:
    """The units of a graph in which `calibrate` and `scale-weights` have noted what becomes integers, the costliest first.

    The noises of a unit's layers add up. A layer that cannot but give integers follows the costliest one that reads them: as
    long as it computes on integers, what they read is rounded. Units that cannot be measured stand behind the others, in
    graph order.
    """
    noise = {one.node: one.noise for one in sensitivities(graph, context, dialect=dialect)}
    found, placement, back_end = groups(graph, dialect), place(graph, find_dialect(dialect)), find_dialect(dialect)
    raised: dict[Node, float] = {}
    for nodes in found:
        for giver in (giver for node in nodes for giver in _givers(node, placement, Role.WEIGHTED)):
            if giver.op not in back_end.float_output:
                raised[giver] = max(raised.get(giver, -1.0), *(noise.get(node, -1.0) for node in nodes))
    units = {_unit(nodes, noise): max(raised.get(node, -1.0) for node in nodes) for nodes in found}
    own = {unit: -1.0 if unit.noise is None else unit.noise for unit in units}
    return sorted(units, key=lambda unit: (max(units[unit], own[unit]), own[unit]), reverse=True)


def _unit(nodes: list[Node], noise: dict[Node, float]) -> Unit:
    known = [noise[node] for node in nodes if node in noise]
    outputs, labels = (node.output().name for node in nodes), (repr(node) for node in nodes)
    return Unit(tuple(outputs), tuple(labels), sum(known) if known else None)


def groups(graph: Graph, dialect: str) -> list[list[Node]]:
    """The nodes of each unit, in graph order; arithmetic may belong to several."""
    import networkx

    placement, links = place(graph, find_dialect(dialect)), networkx.Graph()
    for node, role in placement.nodes.items():
        if role is Role.WEIGHTED or is_product(node):
            links.add_edges_from((node, link) for link in _links(node, role, placement))
    order = {node: index for index, node in enumerate(graph.nodes)}
    found = []
    for component in networkx.connected_components(links):
        members = [one for one in component if isinstance(one, Node)]
        givers = [giver for node in members for giver in _givers(node, placement, Role.ARITHMETIC)]
        found.append((min(map(order.__getitem__, members)), sorted({*members, *givers}, key=order.__getitem__)))
    return [nodes for _, nodes in sorted(found, key=lambda one: one[0])]


def _links(node: Node, role: Role, placement: Placement) -> list[Value]:
    """Two nodes with one of these in common are of one unit: the quantizers that they read, and weights."""
    weights = [node.input(1)] if role is Role.WEIGHTED else []
    return [*(placement.values[source] for source in placement.sources(node)), *weights]


def _givers(node: Node, placement: Placement, role: Role) -> Iterator[Node]:
    """The operators of a role that give what a node's quantizers quantize."""
    for source in placement.sources(node):
        producer = placement.origin(placement.values[source])
        if producer is not None and placement.nodes.get(producer) is role and not is_product(producer):
            yield producer
