"""What a rule of the verifier is, and what it may look at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from deburr.ir.graph import Graph
from deburr.ir.model import Model
from deburr.ir.node import Node
from deburr.ir.ops import imports_of
from deburr.ir.value import Value


@dataclass(frozen=True, slots=True)
class Violation:
    """What is wrong, and where, as far as a node or a value can be blamed."""

    message: str
    node: Node | None = None
    value: Value | None = None


@dataclass(eq=False)
class Scope:
    """One graph with what the rules ask about it all the time. `positions` covers every graph of the model."""

    model: Model
    graph: Graph
    imports: Mapping[str, int]  # opset of each domain
    positions: Mapping[Node, int]
    nodes: tuple[Node, ...] = ()
    inputs: frozenset[Value] = field(init=False)
    outputs: frozenset[Value] = field(init=False)

    def __post_init__(self) -> None:
        self.inputs, self.outputs = frozenset(self.graph.inputs), frozenset(self.graph.outputs)


@dataclass(frozen=True, slots=True)
class Rule:
    """`check` yields what breaks the rule in one graph. `explanation` says what holds where it is kept."""

    number: str
    explanation: str
    check: Callable[[Scope], Iterable[Violation]]


def scopes(model: Model) -> list[Scope]:
    """A scope for every graph of the model."""
    owners = {id(function.graph): function for function in model.functions.values()}
    positions: dict[Node, int] = {}
    found = []
    for root in (model.graph, *(function.graph for function in model.functions.values())):
        imports = imports_of(owners.get(id(root)), model)
        for graph in root.walk():
            scope = Scope(model, graph, imports, positions, linked_nodes(graph))
            positions.update((node, index) for index, node in enumerate(scope.nodes))
            found.append(scope)
    return found


def linked_nodes(graph: Graph) -> tuple[Node, ...]:
    """The nodes as the links give them; ends even where the links run in a circle."""
    nodes: list[Node] = []
    node = graph._first
    while node is not None and len(nodes) <= len(graph):
        nodes.append(node)
        node = node._next
    return tuple(nodes)
