"""Bring a model to a newer version of the default operator set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from deburr.ir.graph import Graph
from deburr.passes.core import Context, Pass


@dataclass(frozen=True, slots=True)
class RaiseOpset(Pass):
    """Bring the model to at least this version of the default operator set, with the same meaning."""

    name: ClassVar[str] = "raise-opset"
    main_graph_only: ClassVar[bool] = True

    version: int = 13

    def __post_init__(self) -> None:
        if self.version < 1:
            raise ValueError("version must be at least 1")

    def run(self, graph: Graph, context: Context) -> None:
        """:raises DeburrError: E105 if no such version is known."""
        from deburr.ir.opset import raise_opset

        if context.model.opset < self.version:
            raise_opset(context.model, self.version)
