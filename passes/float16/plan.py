"""Which nodes compute in float16, and which stay in float32 because their numbers would suffer."""

from __future__ import annotations

import fnmatch
from typing import Literal

from deburr.ir.errors import DeburrError
from deburr.ir.graph import Graph
from deburr.ir.model import Model
from deburr.ir.node import Node
from deburr.ir.op_kinds import KINDS, OpKind
from deburr.ir.types import DType
from deburr.ir.value import Value
from deburr.passes.core import Context
from deburr.passes.float16.slots import Slots, slots_of
from deburr.passes.registry import nearest

Precise = Literal["none", "sums", "all"]

_SELECT = ("ArgMax", "ArgMin", "ReduceMax", "ReduceMin")  # reductions that compute no new number
_GROW = ("CumProd", "CumSum", "Exp", "GlobalLpPool", "LpNormalization", "LpPool", "MeanVarianceNormalization", "Pow")
_SPREAD = (OpKind.UNARY, OpKind.BROADCAST, OpKind.MOVEMENT)


class Plan:
    """The nodes that change, with what changes of them; every other node keeps its types."""

    def __init__(self, model: Model, context: Context) -> None:
        self.model, self.context = model, context
        self.halves: dict[Node, Slots] = {}
        for node in _nodes(model):
            slots = slots_of(node, model)
            if isinstance(slots, Slots):
                self.halves[node] = slots
            elif any(value is not None and value.dtype is DType.FLOAT for value in (*node.inputs, *node.outputs)):
                context.remark(node, f"left in float32: {slots}")
        self.halves = {node: slots for node, slots in self.halves.items() if slots}

    def keep(self, patterns: tuple[str, ...]) -> None:
        """Leave out the nodes that are called so, or give or read a value that is.

        :raises DeburrError: E203 for a pattern that fits nothing.
        """
        for pattern in patterns:
            found = [node for node in _nodes(self.model) if any(fnmatch.fnmatchcase(name, pattern) for name in _names(node))]
            if not found:
                names = tuple(dict.fromkeys(name for node in _nodes(self.model) for name in _names(node)))
                raise DeburrError(
                    "E203", f"keep: nothing is called {pattern!r}", where="convert-float16", hint=nearest(pattern, names)
                )
            for node in found:
                self.halves.pop(node, None)

    def leave_precise(self, level: Precise) -> None:
        """Leave out what sums up or grows beyond the range of float16, and the elementwise operators that read nothing else:
        between the two halves of a normalization that an exporter wrote out, nothing is rounded. Sums of integers, and what
        quantizers give, count among these at every level."""
        precise: set[Value] = set()
        for node in _nodes(self.model):
            follows = KINDS.get(node.op) in (OpKind.UNARY, OpKind.BROADCAST) and _reads_only(node, precise)
            if follows or _is_of_integers(node) or _is_precise(node, level):
                precise.update(value for value in node.outputs if value is not None)
                self.halves.pop(node, None)

    def leave_counts(self) -> None:
        """Leave out what computes positions or sizes: from integers, by elementwise operators, to integers or to an input that
        must be float32. Beyond 2048, float16 does not hold every integer."""
        counts: set[Value] = set()
        for node in _nodes(self.model):
            if _counts(node, counts):
                counts.update(value for value in node.outputs if value is not None and value.dtype is DType.FLOAT)
        wanted = [value for node in _nodes(self.model) for value in self._exact_inputs(node) if value in counts]
        while wanted:
            producer = wanted.pop().producer
            if producer is not None and self.halves.pop(producer, None) is not None:
                wanted.extend(value for value in producer.inputs if value is not None and value in counts)

    def leave_large(self, magnitudes: dict[Value, float], limit: float) -> None:
        """Leave out the nodes that read or give a value of which a magnitude beyond the limit was seen."""
        for node in list(self.halves):
            seen = [magnitudes.get(value, 0.0) for value in (*node.inputs, *node.outputs) if value is not None]
            if max(seen, default=0.0) > limit:
                del self.halves[node]
                self.context.remark(node, f"left in float32: on the calibration data its numbers reach {max(seen):.3g}")

    def _exact_inputs(self, node: Node) -> list[Value]:
        """The float inputs that must be exact: what is cast to integers, and what no float16 may take the place of."""
        slots = self.halves.get(node)
        if node.op == "Cast" and node.output().dtype is not DType.FLOAT:
            return [node.input(0)]
        if slots is None:
            return [value for value in node.inputs if value is not None and KINDS.get(node.op) not in _SPREAD]
        return [value for value, may in zip(node.inputs, slots.inputs, strict=True) if value is not None and not may]


def _nodes(model: Model) -> list[Node]:
    """Of the main graph and its subgraphs, outer ones first; functions are not looked into."""
    return [node for graph in model.graph.walk() for node in graph.nodes]


def _names(node: Node) -> list[str]:
    return [name for name in (node.name, *(value.name for value in (*node.inputs, *node.outputs) if value is not None)) if name]


def _is_precise(node: Node, level: Precise) -> bool:
    kind = KINDS.get(node.op)
    if level == "none":
        return False
    if kind is OpKind.REDUCTION:
        return node.op not in _SELECT
    return node.op in _GROW or (level == "all" and kind is OpKind.NORMALIZATION)


def _is_of_integers(node: Node) -> bool:
    """Whether a node gives reals that stand behind integers: a quantizer, or the Cast of an accumulator."""
    producer = node.input(0).producer if node.op == "Cast" else None
    is_sum = producer is not None and KINDS.get(producer.op) is OpKind.CONTRACTION and node.input(0).dtype is DType.INT32
    return is_sum or KINDS.get(node.op) is OpKind.QUANTIZATION


def _floats(node: Node) -> list[Value]:
    return [value for value in node.inputs if value is not None and value.dtype is DType.FLOAT and not value.is_constant]


def _reads_only(node: Node, values: set[Value]) -> bool:
    floats = _floats(node)
    return bool(floats) and all(value in values for value in floats)


def _counts(node: Node, counts: set[Value]) -> bool:
    """Whether a node makes floats of integers, or of such floats."""
    kind = KINDS.get(node.op)
    if kind is OpKind.GENERATOR:
        return True
    return kind in _SPREAD and all(value in counts for value in _floats(node))


def float_values(graph: Graph) -> list[Value]:
    """The float32 values of a graph that are computed."""
    return [value for node in graph.nodes for value in node.outputs if value is not None and value.dtype is DType.FLOAT]
