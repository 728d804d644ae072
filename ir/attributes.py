"""Attributes of a node, typed as ONNX types them."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from deburr.ir.constants import Constant

if TYPE_CHECKING:
    from deburr.ir.graph import Graph


class AttributeKind(enum.IntEnum):
    """The values of ``AttributeProto.AttributeType``."""

    UNDEFINED = 0
    FLOAT = 1
    INT = 2
    STRING = 3
    TENSOR = 4
    GRAPH = 5
    FLOATS = 6
    INTS = 7
    STRINGS = 8
    TENSORS = 9
    GRAPHS = 10
    SPARSE_TENSOR = 11
    SPARSE_TENSORS = 12
    TYPE_PROTO = 13
    TYPE_PROTOS = 14


@dataclass(frozen=True, slots=True)
class AttributeReference:
    """Inside a function: the attribute that the caller gives under this name."""

    name: str


@dataclass(frozen=True, slots=True)
class Attribute:
    """A kind and a value.

    FLOAT float, INT int, STRING str (bytes where it is not UTF-8), TENSOR `Constant`, GRAPH `Graph`; the plural kinds
    hold tuples of these; the SPARSE and TYPE kinds hold the serialized attribute; any kind may hold a reference.
    """

    kind: AttributeKind
    value: Any
    doc: str = ""

    @classmethod
    def of(cls, value: Any) -> Attribute:
        """Guess the kind from a Python value.

        :raises TypeError: for an empty sequence (give the kind yourself) or a type that no attribute holds.
        """
        if isinstance(value, Attribute):
            return value
        if isinstance(value, np.ndarray):
            return cls(AttributeKind.TENSOR, Constant.of(value))
        if isinstance(value, Sequence) and not isinstance(value, str | bytes):
            kinds = {_scalar_kind(item) for item in value}
            if kinds == {AttributeKind.INT, AttributeKind.FLOAT}:
                kinds = {AttributeKind.FLOAT}
            if len(kinds) != 1:
                raise TypeError(f"cannot tell the attribute kind of {value!r}")
            return cls(_PLURAL[kinds.pop()], tuple(value))
        return cls(_scalar_kind(value), value)

    @property
    def graphs(self) -> tuple[Graph, ...]:
        """The subgraphs that this attribute holds."""
        if isinstance(self.value, AttributeReference):
            return ()
        if self.kind is AttributeKind.GRAPH:
            return (self.value,)
        return tuple(self.value) if self.kind is AttributeKind.GRAPHS else ()

    def equals(self, other: Attribute) -> bool:
        """Same kind and value; tensors by their bits, graphs by identity."""
        if self.kind is not other.kind:
            return False
        if isinstance(self.value, Constant) and isinstance(other.value, Constant):
            return self.value.equals(other.value)
        return bool(self.value == other.value)


_PLURAL = {
    AttributeKind.INT: AttributeKind.INTS,
    AttributeKind.FLOAT: AttributeKind.FLOATS,
    AttributeKind.STRING: AttributeKind.STRINGS,
    AttributeKind.TENSOR: AttributeKind.TENSORS,
    AttributeKind.GRAPH: AttributeKind.GRAPHS,
}


def _scalar_kind(value: Any) -> AttributeKind:
    from deburr.ir.graph import Graph

    for types, kind in (
        ((bool, int, np.integer), AttributeKind.INT),
        ((float, np.floating), AttributeKind.FLOAT),
        ((str, bytes), AttributeKind.STRING),
        ((Constant,), AttributeKind.TENSOR),
        ((Graph,), AttributeKind.GRAPH),
    ):
        if isinstance(value, types):
            return kind
    raise TypeError(f"no ONNX attribute holds a {type(value).__name__}")
