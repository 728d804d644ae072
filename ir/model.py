"""The model in memory: Model > Graph > Node > Value, mutable SSA with use lists."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from deburr.ir.attributes import Attribute
from deburr.ir.graph import Graph


@dataclass(eq=False)
class Function:
    """A model-local function: a graph with named attributes (a default, or None where the caller must give one)."""

    name: str
    domain: str
    graph: Graph
    overload: str = ""
    attributes: dict[str, Attribute | None] = field(default_factory=dict)
    opset_imports: dict[str, int] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    doc: str = ""


@dataclass(eq=False)
class Model:
    """A main graph, functions, and what the file says about itself. `folder` is where external data may lie."""

    graph: Graph
    opset_imports: dict[str, int]
    functions: dict[tuple[str, str, str], Function] = field(default_factory=dict)  # (domain, name, overload)
    metadata: dict[str, str] = field(default_factory=dict)
    ir_version: int = 10
    producer: tuple[str, str] = ("", "")  # name, version
    domain: str = ""
    version: int = 0
    doc: str = ""
    folder: Path | None = None
    edits: int = 0  # of the model itself: functions and opset imports
    extra: bytes = b""  # a serialized ModelProto with the fields that the IR does not model (training, device configuration)

    @property
    def opset(self) -> int:
        """Version of the default operator set (0 if the model imports none)."""
        return self.opset_imports.get("", 0)

    @property
    def graphs(self) -> Iterator[Graph]:
        """Every graph: the main one, the functions', and all inside them."""
        yield from self.graph.walk()
        for function in self.functions.values():
            yield from function.graph.walk()

    @property
    def revision(self) -> int:
        """Grows with every edit of any graph, and of the model itself through the methods below."""
        return self.edits + self.graph.revision + sum(function.graph.revision for function in self.functions.values())

    def remove_function(self, function: Function) -> None:
        """:raises KeyError: if the model has no such function."""
        del self.functions[function.domain, function.name, function.overload]
        self.edits += function.graph.revision + 1

    def import_opset(self, domain: str, version: int) -> None:
        """Import a version of an operator set."""
        if self.opset_imports.get(domain) != version:
            self.opset_imports[domain] = version
            self.edits += 1
