"""Placement: which nodes compute on integers, which values therefore need quantization parameters, and whose they take.

Weighted operators come first: their data and their outputs are quantized. The others join where everything that they read is
quantized already, so integers spread along the graph and never reach a branch that float operators feed. Nodes that are noted
to stay float do neither. A pure function of the graph and the dialect: `calibrate` and `insert-qdq` see the same placement.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from deburr.ir.graph import Graph
from deburr.ir.node import Node
from deburr.ir.types import DType
from deburr.ir.value import Value
from deburr.passes.quantize.dialects import Dialect, Role
from deburr.passes.quantize.keep import is_kept
from deburr.passes.quantize.weighted import is_product, refusal

KEPT = "it is named by keep"
QUANTIZED_OPS = frozenset(
    ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger", "QGemm")
)


@dataclass(slots=True)
class Placement:
    """The nodes that compute on integers, and the values between them.

    `values`: everything but weights that is to be quantized, in graph order, with the value whose parameters it takes.
    `clamps`: an activation function -> the value in front of it, which gets no quantizer of its own. `addends`: an Add -> the
    value that a convolution hands over in float. `refused`: nodes that could have been quantized, with the reason.
    """

    nodes: dict[Node, Role] = field(default_factory=dict)
    values: dict[Value, Value] = field(default_factory=dict)
    clamps: dict[Node, Value] = field(default_factory=dict)
    addends: dict[Node, Value] = field(default_factory=dict)
    refused: dict[Node, str] = field(default_factory=dict)

    @property
    def observed(self) -> list[Value]:
        """The values whose range must be measured: what movement gives holds nothing new, and constants are known."""
        return [value for value in self.values if not (value.is_constant or self._is_moved(value))]

    @property
    def constants(self) -> list[Value]:
        """The constants that are to be quantized like activations."""
        return [value for value in self.values if value.is_constant]

    def _is_moved(self, value: Value) -> bool:
        return value.producer is not None and self.nodes.get(value.producer) is Role.MOVEMENT

    def origin(self, value: Value) -> Node | None:
        """The node that computes a value, in front of the activation functions that it goes through."""
        node = value.producer
        while node in self.clamps:
            node = self.clamps[node].producer
        return node

    def sources(self, node: Node) -> list[Value]:
        """The activations that a node of this placement reads as integers."""
        addend = self.addends.get(node)
        return [value for value in data_inputs(node, self.nodes[node]) if value is not addend]


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
        if self.dialect.everywhere:
            self._wanted.update(value for value in self.graph.inputs if value.dtype is DType.FLOAT)
        if self.dialect.fuses_sums:
            self._fuse_sums()
        for node in self.graph.nodes:
            self._join(node)
        if self.dialect.spreads:
            self._take_back()
        self._collect()
        self._share()
        return self.found

    def _weighted(self, node: Node) -> None:
        if is_kept(node):
            self.found.refused[node] = KEPT
            return
        if self.dialect.products and is_product(node):
            self.found.nodes[node] = Role.ARITHMETIC
            self._wanted.update(node.input(index) for index in (0, 1))
            return
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
            if self._must_give(node):
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

    def _must_give(self, node: Node) -> bool:
        """Whether a weighted operator is to give integers."""
        if node.output() in self.found.addends.values():
            return False
        return node.op not in self.dialect.float_output or self.dialect.spreads or self._is_wanted(node.output())

    def _obstacle(self, node: Node, role: Role) -> str:
        if is_kept(node):
            return KEPT
        inputs = [value for value in data_inputs(node, role) if value is not self.found.addends.get(node)]
        constants = [value for value in inputs if value.is_constant]
        if constants and not (self.dialect.everywhere and role is Role.ARITHMETIC and len(constants) < len(inputs)):
            return "it reads a constant"
        if not inputs or not all(value in self._wanted or value in constants for value in inputs):
            return "what it reads is not quantized"
        if any(value is not None and value.dtype is not DType.FLOAT for value in node.outputs):
            return "not every output is float"
        if node.op == "MaxPool" and len(node.outputs) > 1:
            return "its indices are used"
        return ""

    def _give(self, node: Node) -> None:
        """The outputs are quantized: as they are, or behind the activation function that alone reads them."""
        has_own_scale = self.found.nodes.get(node) is not Role.MOVEMENT and node.op not in self.dialect.one_scale
        for value in node.outputs:
            if value is None:
                continue
            clamp = self._clamp_behind(value) if has_own_scale else None
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
        if is_kept(node):
            return None
        is_clamp = self.dialect.role(node.op, node.domain) is Role.CLAMP and node.input(0) is value
        return node if is_clamp and clamps_around_zero(node) else None

    def _fuse_sums(self) -> None:
        """Of the addends that come straight from weighted operators, the one computed last stays float."""
        for node, role in self.found.nodes.items():
            value = node.output()
            if role is not Role.WEIGHTED or value.is_output or len(value.uses) != 1:
                continue
            reader = value.consumers[0]
            is_sum = reader.op == "Add" and reader.graph is self.graph and not is_kept(reader)
            if is_sum and not any(other.is_constant for other in reader.inputs if other is not None):
                self.found.addends[reader] = value

    def _take_back(self) -> None:
        """Drop the quantizers that no integer operator reads, and the movement that then moves floats."""
        for node in reversed(list(self.graph.nodes)):
            role = self.found.nodes.get(node)
            is_integer = role is not None or node in self.found.clamps
            if not is_integer or any(self._is_read(value) for value in node.outputs):
                continue
            if node in self.found.clamps:
                if self._origin(node).op in self.dialect.float_output:
                    self._wanted.discard(node.output())
                    del self.found.clamps[node]
            elif node.op in self.dialect.float_output:
                self._wanted.difference_update(value for value in node.outputs if value is not None)
                if role in (Role.MOVEMENT, Role.CLAMP):
                    del self.found.nodes[node]

    def _is_read(self, value: Value | None) -> bool:
        """Whether an integer operator reads the value, or what an activation function makes of it is quantized."""
        if value is None:
            return False
        return any(
            self.found.clamps.get(node) is value
            or (node in self.found.nodes and any(source is value for source in self.found.sources(node)))
            for node in value.consumers
        )

    def _origin(self, clamp: Node) -> Node:
        """The integer operator in front of a chain of activation functions."""
        producer = self.found.clamps[clamp].producer
        assert producer is not None
        return self._origin(producer) if producer in self.found.clamps else producer

    def _collect(self) -> None:
        """Put the values in graph order and give each the one whose parameters it takes."""
        values = self.found.values
        for value in self.graph.inputs:
            if value in self._wanted:
                values[value] = value
        for node in self.graph.nodes:
            role = self.found.nodes.get(node)
            if role is Role.ARITHMETIC:
                values.update((value, value) for value in self.found.sources(node) if value.is_constant)
            for given in node.outputs:
                if given is not None and given in self._wanted:
                    values[given] = values[node.input(0)] if role is Role.MOVEMENT else given

    def _share(self) -> None:
        """Let all that meets at an operator with one scale take the parameters of one value."""
        values = self.found.values
        for node in self.found.nodes:
            if node.op in self.dialect.one_scale:
                source = values[node.output()]
                met = {values[value] for value in self.found.sources(node)}
                values.update((value, source) for value, own in list(values.items()) if own in met)


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
