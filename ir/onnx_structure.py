"""Names in a GraphProto: each defined once, and defined before it is read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from deburr.ir.errors import DeburrError


def check_structure(model: Any, name: str) -> None:
    """Refuse duplicate names, undefined inputs and outputs, cycles and nodes out of order, in subgraphs and functions too.

    :raises DeburrError: E103, naming the node and the value.
    """
    _graph(model.graph, set(), name)
    for function in model.functions:
        where = f"{name}, function {function.domain}.{function.name}"
        _decode((*function.input, *function.output, *function.attribute))
        defined = _once(function.input, "input", where)
        _nodes(function.node, defined, where)
        _outputs(function.output, defined, where)


def _graph(graph: Any, outer: set[str], where: str) -> None:
    inputs = _once((info.name for info in graph.input), "input", where)
    sparse = (tensor.values.name for tensor in graph.sparse_initializer)
    initializers = _once([*(tensor.name for tensor in graph.initializer), *sparse], "initializer", where)
    local = inputs | initializers
    _nodes(graph.node, local, where, outer)
    _outputs((info.name for info in graph.output), local, where)


def _nodes(nodes: Iterable[Any], local: set[str], where: str, outer: Iterable[str] = ()) -> None:
    """Walk the nodes in order; `local` grows by what they define."""
    outer, nodes = set(outer), list(nodes)
    for node in nodes:
        _decode((*node.input, *node.output))
        place = f"{where}, node {label(node)}"
        for name in node.input:
            if name and name not in local and name not in outer:
                raise _undefined(name, node, nodes, place)
        for graph in _subgraphs(node):
            _graph(graph, outer | local, place)
        for name in node.output:
            if name in local or name in outer:
                raise DeburrError(
                    "E103", f"the value {name!r} is defined twice", where=place, hint="give every value its own name"
                )
            if name:
                local.add(name)


def _outputs(names: Iterable[str], local: set[str], where: str) -> None:
    for name in names:
        if name not in local:
            raise DeburrError("E103", f"the output {name!r} is not computed by any node", where=where)


def _once(names: Iterable[str], kind: str, where: str) -> set[str]:
    seen: set[str] = set()
    for name in names:
        if not name:
            raise DeburrError("E103", f"an {kind} without a name", where=where)
        if name in seen:
            raise DeburrError("E103", f"the {kind} {name!r} is listed twice", where=where, hint="give every value its own name")
        seen.add(name)
    return seen


def _decode(names: Iterable[str | bytes]) -> None:
    """Protobuf hands out repeated strings that are not UTF-8 as bytes.

    :raises UnicodeDecodeError: as protobuf itself does for all other strings.
    """
    for name in names:
        if isinstance(name, bytes):
            name.decode()


def _undefined(name: str, node: Any, nodes: list[Any], where: str) -> DeburrError:
    producers = {output: other for other in nodes for output in other.output if output}
    if name not in producers:
        return DeburrError(
            "E103", f"the input {name!r} is not defined", where=where, why="no input, initializer or node has it"
        )
    cycle = _path(producers[name], node, producers)
    if cycle:
        return DeburrError(
            "E103", "the nodes form a cycle", where=where, why=" -> ".join(label(step) for step in [*cycle, cycle[0]])
        )
    why = f"the node {label(producers[name])} that computes it stands behind"
    return DeburrError("E103", f"the input {name!r} is read before it is computed", where=where, why=why, hint="sort the nodes")


def _path(start: Any, goal: Any, producers: dict[str, Any]) -> list[Any]:
    """Nodes from `goal` to `start` along the edges, where `start` depends on `goal`; else nothing."""
    came_from: dict[int, Any] = {id(start): None}
    stack = [start]
    while stack:
        node = stack.pop()
        if node is goal:
            path = [node]
            while came_from[id(path[-1])] is not None:
                path.append(came_from[id(path[-1])])
            return path
        for name in node.input:
            other = producers.get(name)
            if other is not None and id(other) not in came_from:
                came_from[id(other)] = node
                stack.append(other)
    return []


def label(node: Any) -> str:
    """How messages name a NodeProto."""
    return repr(node.name) if node.name else f"{node.op_type} -> {', '.join(node.output)}"


def _subgraphs(node: Any) -> Iterable[Any]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs
