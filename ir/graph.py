"""Graphs: nodes in execution order, values, and the primitives through which every edit goes.

Each primitive bumps `Graph.revision` if and only if something really changed. So "did this pass change anything" is measured,
and an analysis keyed on (graph, revision) never needs to be invalidated. Iterating over the nodes survives edits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy.typing as npt

from deburr.ir.constants import Constant
from deburr.ir.node import Node
from deburr.ir.types import QParams, TensorType, ValueType
from deburr.ir.value import Value


class Graph:
    """Nodes in execution order, inputs, outputs and constants. `parent` is the node that holds it as a subgraph."""

    def __init__(self, name: str = "main", parent: Node | None = None) -> None:
        self.name, self.parent, self.doc = name, parent, ""
        self.inputs: tuple[Value, ...] = ()
        self.outputs: tuple[Value, ...] = ()
        self.metadata: dict[str, str] = {}
        self.annotations: dict[Value, dict[str, Value]] = {}  # ONNX quantization annotations: value -> key -> constant
        self.revision = 0
        self._values: dict[str, Value] = {}
        self._suffixes: dict[str, int] = {}  # the last number given out for a base name
        self._holders: dict[Node, None] = {}  # the nodes that hold subgraphs
        self._first: Node | None = None
        self._last: Node | None = None
        self._count = 0

    # reading

    @property
    def nodes(self) -> Iterator[Node]:
        """The nodes in order. Edits during the walk are safe: a removed node is skipped, one put in behind is visited."""
        node = self._first
        while node is not None:
            yield node
            node = node._next
            while node is not None and node.graph is not self:
                node = node._next

    def __len__(self) -> int:
        return self._count

    @property
    def values(self) -> tuple[Value, ...]:
        """Every value that belongs to this graph (not to an outer or inner one)."""
        return tuple(self._values.values())

    @property
    def constants(self) -> tuple[Value, ...]:
        return tuple(value for value in self._values.values() if value.is_constant)

    def value(self, name: str) -> Value:
        """The value with this name, here or in an enclosing graph.

        :raises KeyError: if there is none.
        """
        graph: Graph | None = self
        while graph is not None:
            if name in graph._values:
                return graph._values[name]
            graph = graph.parent.graph if graph.parent is not None else None
        raise KeyError(name)

    @property
    def root(self) -> Graph:
        graph = self
        while graph.parent is not None:
            graph = graph.parent.owner
        return graph

    def walk(self) -> Iterator[Graph]:
        """This graph and all graphs inside it."""
        yield self
        for node in tuple(self._holders):
            for graph in node.subgraphs:
                yield from graph.walk()

    def fresh_name(self, base: str) -> str:
        """`base`, or `base_1`, `base_2`, …: a name that no value under the root uses."""
        scopes = [graph._values for graph in self.root.walk()]
        name, number = base, self._suffixes.get(base, 0)
        while any(name in scope for scope in scopes):
            number += 1
            name = f"{base}_{number}"
        self._suffixes[base] = number
        return name

    # edits

    def touch(self) -> None:
        """Count an edit, here and in every graph around (their meaning changed too)."""
        graph: Graph | None = self
        while graph is not None:
            graph.revision += 1
            graph = graph.parent.graph if graph.parent is not None else None

    def add_value(self, name: str, type: ValueType | None = None) -> Value:
        """A value without producer, under exactly this name.

        :raises ValueError: if the name is taken.
        """
        if name in self._values or not name:
            raise ValueError(f"the value name {name!r} is empty or taken")
        value = self._values[name] = Value(self, name, type)
        self.touch()
        return value

    def add_constant(self, array: npt.ArrayLike | Constant, name: str = "constant") -> Value:
        """A constant under a fresh name made from `name`."""
        constant = array if isinstance(array, Constant) else Constant.of(array)
        value = self.add_value(self.fresh_name(name), TensorType(constant.dtype, constant.shape))
        value.constant = constant
        return value

    def set_constant(self, value: Value, array: npt.ArrayLike | Constant | None) -> None:
        """Give a value new elements (and the type that follows); None makes it a plain value."""
        constant = array if isinstance(array, Constant) or array is None else Constant.of(array)
        old = value.constant
        if (old is None and constant is None) or (old is not None and constant is not None and old.equals(constant)):
            return
        value.constant = constant
        if constant is not None:
            value.type = TensorType(constant.dtype, constant.shape)
        self.touch()

    def set_type(self, value: Value, type: ValueType | None) -> None:
        if value.type != type:
            value.type = type
            self.touch()

    def set_qparams(self, value: Value, qparams: QParams | None) -> None:
        if value.qparams != qparams:
            value.qparams = qparams
            self.touch()

    def set_inputs(self, values: Sequence[Value]) -> None:
        if list(self.inputs) != list(values):
            self.inputs = tuple(values)
            self.touch()

    def set_outputs(self, values: Sequence[Value]) -> None:
        if list(self.outputs) != list(values):
            self.outputs = tuple(values)
            self.touch()

    def rename(self, value: Value, name: str) -> None:
        """:raises ValueError: if the name is taken."""
        if value.name == name:
            return
        if name in self._values or not name:
            raise ValueError(f"the value name {name!r} is empty or taken")
        del self._values[value.name]
        self._values[name] = value
        value.name = name
        self.touch()

    def add_node(
        self,
        op: str,
        inputs: Sequence[Value | None],
        outputs: int | Sequence[str] | Sequence[Value | None] = 1,
        attributes: Mapping[str, Any] | None = None,
        *,
        domain: str = "",
        name: str = "",
        before: Node | None = None,
        after: Node | None = None,
    ) -> Node:
        """Put a node into the graph: before or after a node, else at the end.

        :param outputs: how many (fresh names), or base names for fresh values, or values without producer to define.
        """
        node = Node(self, op, domain, name)
        self._link(node, before, after)
        for index, value in enumerate(inputs):
            if value is not None:
                node.set_input(index, value)
        for key, attribute in (attributes or {}).items():
            node.set_attribute(key, attribute)
        wanted: Sequence[Any] = [f"{name or op}_output"] * outputs if isinstance(outputs, int) else outputs
        made = [self.add_value(self.fresh_name(out)) if isinstance(out, str) else out for out in wanted]
        self._define(node, made)
        self.touch()
        return node

    def remove(self, node: Node) -> None:
        """Take a node out, with its output values.

        :raises ValueError: if an output is still read, or is an output of the graph.
        """
        for value in node.outputs:
            if value is not None and (value._uses or value.is_output):
                raise ValueError(f"{node!r} cannot be removed: {value!r} is still used")
        inner = [held for graph in node.subgraphs for part in graph.walk() for held in part.nodes]
        for reader in (node, *inner):  # what goes inside a subgraph reads outer values no longer
            for index in reversed(range(len(reader._inputs))):
                reader.set_input(index, None)
        for value in node.outputs:
            if value is not None:
                del self._values[value.name]
        self._unlink(node)
        self.touch()

    def remove_value(self, value: Value) -> None:
        """Drop a constant or an input that nothing reads.

        :raises ValueError: if it is read, produced by a node, or an output of the graph.
        """
        if value._uses or value.producer is not None or value.is_output:
            raise ValueError(f"{value!r} cannot be removed: it is still used")
        self.inputs = tuple(kept for kept in self.inputs if kept is not value)
        del self._values[value.name]
        self.touch()

    def move(self, node: Node, *, before: Node | None = None, after: Node | None = None) -> None:
        """Put a node elsewhere in the order of its graph: before or after another, else at the end."""
        follows = before._previous if before is not None else after if after is not None else self._last
        if node in (before, follows) or (follows is not None and node._previous is follows):
            return
        self._unlink(node)
        node.graph = self
        self._link(node, before, after)
        self.touch()

    def _define(self, node: Node, values: Sequence[Value | None]) -> None:
        for index, value in enumerate(values):
            if value is None:
                continue
            if value.producer is not None:
                raise ValueError(f"{value!r} already has a producer")
            value.producer, value.index = node, index
        node.outputs = tuple(values)

    def _link(self, node: Node, before: Node | None, after: Node | None) -> None:
        if before is not None:
            after = before._previous
        elif after is None:
            after = self._last
        following = after._next if after is not None else self._first
        node._previous, node._next = after, following
        if after is not None:
            after._next = node
        else:
            self._first = node
        if following is not None:
            following._previous = node
        else:
            self._last = node
        if node.subgraphs:
            self._holders[node] = None
        self._count += 1

    def _unlink(self, node: Node) -> None:
        # The node keeps its forward link, so that a walk which stands on it finds its way on.
        if node._previous is not None:
            node._previous._next = node._next
        else:
            self._first = node._next
        if node._next is not None:
            node._next._previous = node._previous
        else:
            self._last = node._previous
        node.graph = None
        self._holders.pop(node, None)
        self._count -= 1

    def __repr__(self) -> str:
        return f"Graph {self.name!r} ({self._count} nodes)"
