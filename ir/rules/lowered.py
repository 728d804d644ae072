"""Rules for a graph that is ready for code generation."""

from __future__ import annotations

from collections.abc import Iterator

from deburr.ir.rules.core import Rule, Scope, Violation
from deburr.ir.types import DType, TensorType


def _types_known(scope: Scope) -> Iterator[Violation]:
    for value in scope.graph.values:
        known = isinstance(value.type, TensorType) and value.type.dtype is not DType.UNDEFINED and value.type.shape is not None
        if not known and (value._uses or value in scope.outputs):
            yield Violation("its element type or its rank is unknown, or it is no tensor", value.producer, value)


LOWERED = (Rule("V401", "the element type and the rank of every tensor are known", _types_known),)
