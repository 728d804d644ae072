"""Placement: which nodes compute on integers, which values therefore need quantization parameters, and whose they take.

Weighted operators come first: their data and their outputs are quantized. The others join where everything that they read is
quantized already, so integers spread along the graph and never reach a branch that float operators feed. A pure function of
the graph and the dialect: `calibrate` and `insert-qdq` see the same placement.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from deburr.ir.graph import Graph
from deburr.ir.node import Node
from deburr.ir.types import DType
from deburr.ir.value import Value
from deburr.passes.quantize.dialects import Dialect, Role
from deburr.passes.quantize.weighted import refusal

QUANTIZED_OPS = frozenset(
    ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger", "QGemm")
)


@dataclass(slots=True)
class Placement:
    """The nodes that compute on integers, and the values between them.

    `values`: every activation that is to be quantized, in graph order, with the value whose parameters it takes (itself
    where it is observed). `clamps`: an activation function -> the value in front of it, which gets no quantizer of its own.
    `refused`: nodes that could have been quantized, with the reason.
    """

    nodes: dict[Node, Role] = field(default_factory=dict)
    values: dict[Value, Value] = field(default_factory=dict)
    clamps: dict[Node, Value] = field(default_factory=dict)
    refused: dict[Node, str] = field(default_factory=dict)

    @property
    def observed(self) -> list[Value]:
        """The values whose range must be measured."""
        return [value for value, source in self.values.items() if value is source]

    def sources(self, node: Node) -> list[Value]:
        """The activations that a node of this placement reads as integers."""
        return list(data_inputs(node, self.nodes[node]))


def is_quantized(graph: Graph) -> bool:
    """True where the model came with quantization operators, at any depth: it is then left alone."""
    return any(node.op in QUANTIZED_OPS or node.op.startswith("QLinear") for inner in graph.walk() for node in inner.nodes)


def place(graph: Graph, dialect: Dialect) -> Placement:
    """Decide for one graph; nothing is changed."""
    return _Placer(graph, dialect).run()


def data_inputs(node: Node, role: Role) -> Iterator[Value]:
    """The inputs that hold activations; the others are weights, shapes and bounds."""
    if role is Role.ARITHMETIC:
        yield from (value for value in node.inputs if value is not None)
    else:
        yield node.input(0)


class _Placer:
    def __init__(self, graph: Graph, dialect: Dialect) -> None:
        self.graph, self.dialect, self.found = graph, dialect, Placement()
        self._wanted: set[Value] = set()  # values that must be quantized

    def run(self) -> Placement:
        for node in self.graph.nodes:
            if self.dialect.role(node.op, node.domain) is Role.WEIGHTED:
                self._weighted(node)
        for node in self.graph.nodes:
            self._join(node)
        self._collect()
        return self.found

    def _weighted(self, node: Node) -> None:
        reason = refusal(node)
        if reason:
            self.found.refused[node] = reason
            return
        self.found.nodes[node] = Role.WEIGHTED
        self._wanted.add(node.input(0))

    def _join(self, node: Node) -> None:
        """Take in a node if everything it reads is quantized; then its outputs are."""
        role = self.dialect.role(node.op, node.domain)
        if node in self.found.nodes:
            if node.op not in self.dialect.float_output or self._is_wanted(node.output()):
                self._give(node)
        elif node in self.found.clamps:
            self._give(node)
        elif role is not None and role is not Role.WEIGHTED:
            reason = self._obstacle(node, role)
            if reason:
                self.found.refused[node] = reason
            else:
                self.found.nodes[node] = role
                self._give(node)

    def _obstacle(self, node: Node, role: Role) -> str:
        inputs = list(data_inputs(node, role))
        if any(value.is_constant for value in inputs):
            return "it reads a constant"
        if not inputs or not all(value in self._wanted for value in inputs):
            return "what it reads is not quantized"
        if any(value is not None and value.dtype is not DType.FLOAT for value in node.outputs):
            return "not every output is float"
        if node.op == "MaxPool" and len(node.outputs) > 1:
            return "its indices are used"
        return ""

    def _give(self, node: Node) -> None:
        """The outputs are quantized: as they are, or behind the activation function that alone reads them."""
        for value in node.outputs:
            if value is None:
                continue
            clamp = None if self.found.nodes.get(node) is Role.MOVEMENT else self._clamp_behind(value)
            if clamp is not None:
                self.found.clamps[clamp] = value
            else:
                self._wanted.add(value)

    def _is_wanted(self, value: Value) -> bool:
        """Whether an operator that could end in float has its output read as integers, maybe behind an activation function."""
        clamp = self._clamp_behind(value)
        return value in self._wanted or (clamp is not None and self._is_wanted(clamp.output()))

    def _clamp_behind(self, value: Value) -> Node | None:
        consumers = value.consumers
        if len(consumers) != 1 or value.is_output or consumers[0].graph is not self.graph:
            return None
        node = consumers[0]
        is_clamp = self.dialect.role(node.op, node.domain) is Role.CLAMP and node.input(0) is value
        return node if is_clamp and clamps_around_zero(node) else None

    def _collect(self) -> None:
        """Put the values in graph order and give each the one whose parameters it takes."""
        for value in self.graph.inputs:
            if value in self._wanted:
                self.found.values[value] = value
        for node in self.graph.nodes:
            moved = self.found.nodes.get(node) is Role.MOVEMENT
            for given in node.outputs:
                if given is not None and given in self._wanted:
                    self.found.values[given] = self.found.values[node.input(0)] if moved else given


def clamp_bounds(node: Node) -> tuple[float, float] | None:
    """Lower and upper bound of a Relu or Clip, or None where they are not known before the model runs."""
    if node.op == "Relu":
        return 0.0, float("inf")
    bounds = [node.get("min", float("-inf")), node.get("max", float("inf"))]
    for index in (1, 2):
        value = node.optional_input(index)
        if value is None:
            continue
        if value.array is None or value.array.size != 1:
            return None
        bounds[index - 1] = float(value.array.reshape(()))
    return bounds[0], bounds[1]


def clamps_around_zero(node: Node) -> bool:
    """True where a quantizer can do the same: every quantizer represents zero, so a clamp that excludes it must stay."""
    bounds = clamp_bounds(node)
    return bounds is not None and bounds[0] <= 0 <= bounds[1]
