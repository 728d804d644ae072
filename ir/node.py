"""Nodes: operators applied to values."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from deburr.ir.attributes import Attribute
from deburr.ir.value import Use, Value

if TYPE_CHECKING:
    from deburr.ir.graph import Graph


class Node:
    """An operator applied to values. `None` among the inputs is an optional input left out; outputs likewise."""

    __slots__ = (
        "_attributes", "_inputs", "_next", "_previous", "doc", "domain", "extra", "graph", "metadata", "name", "op", "outputs",
        "overload",
    )  # fmt: skip

    def __init__(self, graph: Graph, op: str, domain: str, name: str) -> None:
        self.graph: Graph | None = graph  # None once removed
        self.op, self.domain, self.name, self.overload, self.doc = op, domain, name, "", ""
        self.metadata: dict[str, str] = {}
        self.extra = b""  # a serialized NodeProto with the fields that the IR does not model (device placement)
        self._inputs: list[Value | None] = []
        self.outputs: tuple[Value | None, ...] = ()
        self._attributes: dict[str, Attribute] = {}
        self._next: Node | None = None
        self._previous: Node | None = None

    @property
    def owner(self) -> Graph:
        """The graph this node stands in.

        :raises ValueError: once the node was removed.
        """
        if self.graph is None:
            raise ValueError(f"{self!r} was removed from its graph")
        return self.graph

    @property
    def inputs(self) -> tuple[Value | None, ...]:
        return tuple(self._inputs)

    @property
    def attributes(self) -> Mapping[str, Attribute]:
        return MappingProxyType(self._attributes)

    @property
    def subgraphs(self) -> tuple[Graph, ...]:
        return tuple(graph for attribute in self._attributes.values() for graph in attribute.graphs)

    def input(self, index: int) -> Value:
        """Input number `index`, which must be there.

        :raises ValueError: if it is left out.
        """
        value = self._inputs[index] if index < len(self._inputs) else None
        if value is None:
            raise ValueError(f"{self!r} has no input {index}")
        return value

    def optional_input(self, index: int) -> Value | None:
        return self._inputs[index] if index < len(self._inputs) else None

    def output(self, index: int = 0) -> Value:
        """Output number `index`, which must be there.

        :raises ValueError: if it is left out.
        """
        value = self.outputs[index] if index < len(self.outputs) else None
        if value is None:
            raise ValueError(f"{self!r} has no output {index}")
        return value

    def get(self, name: str, default: Any = None) -> Any:
        """The value of an attribute, or `default` where the node does not carry it."""
        attribute = self._attributes.get(name)
        return default if attribute is None else attribute.value

    def set_input(self, index: int, value: Value | None) -> None:
        """Read `value` at `index`; trailing inputs are filled with None, or cut where the last one becomes None."""
        while len(self._inputs) <= index:
            self._inputs.append(None)
        old = self._inputs[index]
        if old is not value:
            if old is not None:
                del old._uses[Use(self, index)]
            self._inputs[index] = value
            if value is not None:
                value._uses[Use(self, index)] = None
            self.owner.touch()
        while self._inputs and self._inputs[-1] is None:
            self._inputs.pop()

    def set_attribute(self, name: str, value: Any) -> None:
        """Set an attribute from a Python value or an `Attribute`; None takes it away."""
        old = self._attributes.get(name)
        if value is None:
            if old is not None:
                del self._attributes[name]
                self._note_subgraphs()
            return
        new = Attribute.of(value)
        if old is None or not old.equals(new):
            self._attributes[name] = new
            for graph in new.graphs:
                graph.parent = self
            self._note_subgraphs()

    def _note_subgraphs(self) -> None:
        holders = self.owner._holders
        if self.subgraphs:
            holders[self] = None
        else:
            holders.pop(self, None)
        self.owner.touch()

    def __repr__(self) -> str:
        label = f"{self.domain}.{self.op}" if self.domain else self.op
        return f"{label} {self.name!r}" if self.name else f"{label} -> {', '.join(v.name for v in self.outputs if v)}"
