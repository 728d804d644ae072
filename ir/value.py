"""Values: the edges of a graph, with use lists."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from deburr.ir.constants import Constant
from deburr.ir.types import Array, DType, QParams, Shape, TensorType, ValueType

if TYPE_CHECKING:
    from deburr.ir.graph import Graph
    from deburr.ir.node import Node


@dataclass(frozen=True, slots=True)
class Use:
    """Input number `index` of `node`."""

    node: Node
    index: int


class Value:
    """An edge of the graph: a tensor with one producer (or none: a graph input or a constant) and its uses."""

    __slots__ = ("_uses", "constant", "declared", "doc", "graph", "index", "metadata", "name", "producer", "qparams", "type")

    def __init__(self, graph: Graph, name: str, type: ValueType | None = None) -> None:
        self.graph, self.name, self.type = graph, name, type
        self.producer: Node | None = None
        self.index = 0  # which output of the producer
        self.constant: Constant | None = None  # for a graph input: its default
        self.qparams: QParams | None = None
        self.doc = ""
        self.metadata: dict[str, str] = {}
        self.declared = b""  # the file's TypeProto where it says more than `type` (denotations), written while it still fits
        self._uses: dict[Use, None] = {}

    @property
    def uses(self) -> tuple[Use, ...]:
        """Every (node, input index) that reads this value, in subgraphs too; graph outputs are not uses."""
        return tuple(self._uses)

    @property
    def consumers(self) -> tuple[Node, ...]:
        """The nodes that read this value, each once."""
        return tuple(dict.fromkeys(use.node for use in self._uses))

    @property
    def is_input(self) -> bool:
        return any(value is self for value in self.graph.inputs)

    @property
    def is_output(self) -> bool:
        return any(value is self for value in self.graph.outputs)

    @property
    def is_constant(self) -> bool:
        """Known now and for every run: an initializer that is not the default of a graph input."""
        return self.constant is not None and not self.is_input

    @property
    def array(self) -> Array | None:
        """The elements if this is a constant, else None."""
        return self.constant.array if self.is_constant and self.constant is not None else None

    @property
    def dtype(self) -> DType | None:
        return self.type.dtype if isinstance(self.type, TensorType) else None

    @property
    def shape(self) -> Shape | None:
        return self.type.shape if isinstance(self.type, TensorType) else None

    @property
    def static_shape(self) -> tuple[int, ...] | None:
        return self.type.static_shape if isinstance(self.type, TensorType) else None

    def replace_uses(self, other: Value) -> bool:
        """Make every reader of this value read `other` instead.

        Where this value is an output of its graph, `other` takes over its name and its place, because outputs keep their
        names. That needs an `other` that a node of the same graph produces and that is no output itself; else the output
        stays as it is and the answer is False.
        """
        for use in self.uses:
            use.node.set_input(use.index, other)
        if not self.is_output:
            return True
        if other.graph is not self.graph or other.producer is None or other.is_output:
            return False
        name = self.name
        self.graph.rename(self, self.graph.fresh_name(name))
        self.graph.rename(other, name)
        self.graph.set_outputs([other if value is self else value for value in self.graph.outputs])
        return True

    def __repr__(self) -> str:
        return f"%{self.name}: {self.type if self.type is not None else '?'}"
