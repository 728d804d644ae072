"""Rules that hold for every graph at any time: values, uses and order fit together."""

from __future__ import annotations

from collections.abc import Iterator

from deburr.ir.graph import Graph
from deburr.ir.node import Node
from deburr.ir.rules.core import Rule, Scope, Violation
from deburr.ir.types import TensorType
from deburr.ir.value import Use, Value


def _node_list(scope: Scope) -> Iterator[Violation]:
    if len(scope.nodes) != len(scope.graph):
        yield Violation(f"the links lead through {len(scope.nodes)} nodes, the graph counts {len(scope.graph)}")
    previous: Node | None = None
    for node in scope.nodes:
        if node.graph is not scope.graph:
            yield Violation("the node says that it was removed, or stands in another graph", node)
        if node._previous is not previous:
            yield Violation("the node before it is another one than its link says", node)
        previous = node


def _values_exist(scope: Scope) -> Iterator[Violation]:
    for name, value in scope.graph._values.items():
        if value.name != name or value.graph is not scope.graph:
            yield Violation(f"it is filed under {name!r}", value=value)
    for end in (*scope.graph.inputs, *scope.graph.outputs):
        if _is_gone(end):
            yield Violation("the value was removed from its graph", value=end)
    for node in scope.nodes:
        for touched in (*node._inputs, *node.outputs):
            if touched is not None and _is_gone(touched):
                yield Violation("the value was removed from its graph", node, touched)


def _is_gone(value: Value) -> bool:
    return value.graph._values.get(value.name) is not value


def _defined(scope: Scope) -> Iterator[Violation]:
    for value in scope.graph.values:
        is_read = value._uses or value in scope.outputs
        if is_read and value.producer is None and value.constant is None and value not in scope.inputs:
            use = next(iter(value._uses), None)
            yield Violation("it is read, and no node, input or constant defines it", use.node if use else None, value)


def _in_scope(scope: Scope) -> Iterator[Violation]:
    around = _ancestors(scope.graph)
    for node in scope.nodes:
        for value in node._inputs:
            if value is None or value.graph is scope.graph:
                continue
            if value.graph not in around:
                yield Violation(f"it belongs to {value.graph!r}, which does not enclose the node", node, value)
            elif any(value.name in graph._values for graph in around[: around.index(value.graph)]):
                yield Violation("a graph in between has a value with the same name", node, value)


def _ancestors(graph: Graph) -> list[Graph]:
    """The graph and those around it, from the inside."""
    around: list[Graph] = [graph]
    while around[-1].parent is not None and around[-1].parent.graph is not None and around[-1].parent.graph not in around:
        around.append(around[-1].parent.graph)
    return around


def _ordered(scope: Scope) -> Iterator[Violation]:
    holders = _holders(scope.graph)
    positions = scope.positions
    for node in scope.nodes:
        for value in node._inputs:
            if value is None or value.producer is None:
                continue
            reader = node if value.graph is scope.graph else holders.get(value.graph)
            if reader is not None and positions.get(value.producer, -1) >= positions.get(reader, 0):
                yield Violation(_order_message(reader, value.producer), node, value)


def _holders(graph: Graph) -> dict[Graph, Node]:
    """For every graph around: which of its nodes holds this graph."""
    holders: dict[Graph, Node] = {}
    node = graph.parent
    while node is not None and node.graph is not None and node.graph not in holders:
        holders[node.graph] = node
        node = node.graph.parent
    return holders


def _order_message(reader: Node, producer: Node) -> str:
    circle = _path(producer, reader)
    if circle:
        names = " -> ".join(node.name or node.op for node in (*reversed(circle), reader))
        return f"the nodes form a cycle: {names}"
    return f"{producer!r}, which defines it, stands further down"


def _path(start: Node, goal: Node) -> list[Node]:
    """From `start` against the edges to `goal`, both included; empty if there is no way."""
    came: dict[Node, Node | None] = {start: None}
    todo = [start]
    while todo and goal not in came:
        node = todo.pop()
        for value in node._inputs:
            if value is not None and value.producer is not None and value.producer not in came:
                came[value.producer] = node
                todo.append(value.producer)
    path: list[Node] = []
    step: Node | None = goal if goal in came else None
    while step is not None:
        path.append(step)
        step = came[step]
    return path[::-1]


def _names(scope: Scope) -> Iterator[Violation]:
    holders = _holders(scope.graph)
    for value in scope.graph.values:
        if not value.name:
            yield Violation("the name is empty", value.producer, value)
        for graph, holder in holders.items():
            outer = graph._values.get(value.name)
            if outer is not None and value.producer is not None and _is_visible(outer, holder, scope):
                yield Violation(f"the enclosing graph {graph.name!r} has a value of this name", value.producer, value)


def _is_visible(value: Value, holder: Node, scope: Scope) -> bool:
    return value.producer is None or scope.positions.get(value.producer, -1) < scope.positions.get(holder, 0)


def _uses(scope: Scope) -> Iterator[Violation]:
    for node in scope.nodes:
        for index, value in enumerate(node._inputs):
            if value is not None and Use(node, index) not in value._uses:
                yield Violation(f"input {index} reads it, and its use list does not say so", node, value)
    for value in scope.graph.values:
        for use in value._uses:
            if use.node.graph is None:
                yield Violation("its use list holds a node that was removed", use.node, value)
            elif use.index >= len(use.node._inputs) or use.node._inputs[use.index] is not value:
                yield Violation(f"its use list says that input {use.index} reads it", use.node, value)


def _producers(scope: Scope) -> Iterator[Violation]:
    for node in scope.nodes:
        for index, value in enumerate(node.outputs):
            if value is not None and (value.producer is not node or value.index != index):
                yield Violation(f"output {index} of the node is a value that says another node defines it", node, value)
            if value is not None and value.graph is not scope.graph:
                yield Violation("a node defines values of its own graph only", node, value)
    for value in scope.graph.values:
        source = value.producer
        if source is None:
            continue
        if value.index >= len(source.outputs) or source.outputs[value.index] is not value or source.graph is not scope.graph:
            yield Violation("it says that the node defines it, which does not", source, value)
        if value.constant is not None or value in scope.inputs:
            yield Violation("it is both the result of a node and a constant or an input", source, value)


def _graph_ends(scope: Scope) -> Iterator[Violation]:
    for kind, values in (("input", scope.graph.inputs), ("output", scope.graph.outputs)):
        for value in values:
            if value.graph is not scope.graph:
                yield Violation(f"the graph has it as an {kind}, and it belongs to {value.graph!r}", value=value)
    if len(scope.inputs) < len(scope.graph.inputs):
        yield Violation("two inputs of the graph are the same value")


def _constants(scope: Scope) -> Iterator[Violation]:
    for value in scope.graph.values:
        if value.constant is None:
            continue
        own = TensorType(value.constant.dtype, value.constant.shape)
        if value in scope.inputs and isinstance(value.type, TensorType) and _may_be(own, value.type):
            continue
        if value.type != own:
            yield Violation(f"its type is {value.type}, its elements are {own}", value=value)


def _may_be(own: TensorType, declared: TensorType) -> bool:
    """Whether a default fits the declared type of its input, which may leave dims open."""
    if own.dtype != declared.dtype or declared.shape is None or own.shape is None:
        return own.dtype == declared.dtype
    pairs = zip(own.shape, declared.shape, strict=False)
    return len(own.shape) == len(declared.shape) and all(not isinstance(dim, int) or dim == size for size, dim in pairs)


def _subgraphs(scope: Scope) -> Iterator[Violation]:
    for node in scope.nodes:
        held = node.subgraphs
        if bool(held) != (node in scope.graph._holders):
            yield Violation("the graph's list of nodes with subgraphs is wrong about it", node)
        for graph in held:
            if graph.parent is not node:
                yield Violation(f"its subgraph {graph.name!r} says that another node holds it", node)
    is_root = scope.graph is scope.model.graph or any(scope.graph is item.graph for item in scope.model.functions.values())
    if is_root and scope.graph.parent is not None:
        yield Violation("a main graph, or the graph of a function, says that a node holds it", scope.graph.parent)


def _annotations(scope: Scope) -> Iterator[Violation]:
    for value, notes in scope.graph.annotations.items():
        for noted in (value, *notes.values()):
            if noted.graph._values.get(noted.name) is not noted:
                yield Violation("a quantization annotation names a value that was removed", value=noted)


def _functions(scope: Scope) -> Iterator[Violation]:
    if scope.graph is not scope.model.graph:
        return
    for key, function in scope.model.functions.items():
        if key != (function.domain, function.name, function.overload):
            yield Violation(f"the function {function.name!r} is filed under {key}")


STRUCTURE = (
    Rule("V001", "the nodes of a graph form one intact list", _node_list),
    Rule("V002", "every value that is referred to stands in its graph, under its name", _values_exist),
    Rule("V003", "every value that is read is defined", _defined),
    Rule("V004", "a node reads values of its own graph and of those around it", _in_scope),
    Rule("V005", "a value is defined before it is read", _ordered),
    Rule("V006", "the name of a result is unique in its graph and those around it", _names),
    Rule("V007", "use lists agree with the inputs of nodes", _uses),
    Rule("V008", "a value is defined once, and knows by which node", _producers),
    Rule("V009", "inputs and outputs of a graph are values of that graph, inputs distinct", _graph_ends),
    Rule("V010", "the type of a constant is that of its elements", _constants),
    Rule("V011", "a subgraph knows the node that holds it", _subgraphs),
    Rule("V012", "quantization annotations name values that exist", _annotations),
    Rule("V013", "a function is filed under its name", _functions),
)
