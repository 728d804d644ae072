"""What a graph costs: multiply-accumulates per sample, parameters and their bytes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from deburr.ir.constants import Constant
from deburr.ir.graph import Graph
from deburr.ir.node import Node
from deburr.ir.types import Dim
from deburr.ir.value import Value
from deburr.passes.analysis.einsum import labels_of
from deburr.passes.core import Context

CONTRACTIONS = ("Conv", "ConvInteger", "QLinearConv", "ConvTranspose", "Gemm", "MatMul", "MatMulInteger", "QLinearMatMul")
RECURRENT = ("LSTM", "GRU", "RNN")
_WEIGHT_INDEX = {"QLinearConv": 3, "QLinearMatMul": 3}


@dataclass(frozen=True, eq=False)
class Cost:
    """`macs[node]` per sample for the contractions of one graph; `parameters` counts the elements of every constant that a
    node reads, each constant once, a tensor inside a node Constant included, and `parameter_bytes` what they take in a file.
    Subgraphs are not counted."""

    macs: dict[Node, int]
    parameters: int
    parameter_bytes: int

    @property
    def total_macs(self) -> int:
        return sum(self.macs.values())


def cost(graph: Graph, context: Context) -> Cost:
    """Count the work of every contraction, with sizes that are unknown until run time (the batch) as 1.

    A contraction whose shapes are unknown gets a remark and counts nothing. Recurrent networks count their two products.
    """
    macs: dict[Node, int] = {}
    constants: dict[Value, None] = {}
    for node in graph.nodes:
        constants.update((value, None) for value in node.inputs if value is not None and value.is_constant)
        if node.op in (*CONTRACTIONS, *RECURRENT, "Einsum") and node.domain in ("", "ai.onnx"):
            count = _einsum(node) if node.op == "Einsum" else _recurrent(node) if node.op in RECURRENT else _macs(node)
            if count is not None:
                macs[node] = count
                continue
            context.remark(node, "its multiply-accumulates are not counted", "its shapes are unknown")
    held = [value.constant for value in constants if value.constant is not None]
    held += [found for node in graph.nodes if node.op == "Constant" and isinstance(found := node.get("value"), Constant)]
    return Cost(macs, sum(constant.size for constant in held), sum(constant.nbytes for constant in held))


def _macs(node: Node) -> int | None:
    data, weight = node.input(0), node.input(_WEIGHT_INDEX.get(node.op, 1))
    output = node.output()
    if data.shape is None or weight.shape is None or output.shape is None:
        return None
    if node.op in ("Gemm", "MatMul", "MatMulInteger", "QLinearMatMul"):
        contracted = data.shape[0 if node.get("transA", 0) else -1]
        return _size(output.shape) * _size((contracted,))
    # Every output position reads the whole filter; of a transposed convolution, every input position writes one.
    positions = data.shape if node.op == "ConvTranspose" else output.shape
    return _size(weight.shape) * _size(positions[2:]) * _size(positions[:1])


def contracted_axes(node: Node) -> list[tuple[int, int]]:
    """(number of an operand, its axis) for each index that a MatMul, Gemm or Einsum sums over, once each."""
    if node.op == "MatMul":
        return [(0, -1)]
    if node.op == "Gemm":
        return [(0, 0 if node.get("transA", 0) else 1)]
    terms, out = labels_of(node) or ([], ()) if node.op == "Einsum" else ([], ())
    found = {label: (index, axis) for index, labels in enumerate(terms) for axis, label in enumerate(labels)}
    return [place for label, place in found.items() if label not in out]


def _einsum(node: Node) -> int | None:
    """Every combination of the indices of all labels, once."""
    labels = labels_of(node)
    if labels is None:
        return None
    sizes: dict[str, int] = {}
    for value, names in zip((value for value in node.inputs if value is not None), labels[0], strict=True):
        for label, dim in zip(names, value.shape or (), strict=True):
            sizes[label] = max(sizes.get(label, 1), _size((dim,)))
    return math.prod(sizes.values())


def _recurrent(node: Node) -> int | None:
    """Every step of every sequence reads both matrices, in each direction."""
    steps, *weights = (node.input(index).shape for index in range(3))
    if steps is None or any(shape is None for shape in weights):
        return None
    return _size(steps[:2]) * sum(_size(shape or ()) for shape in weights)


def _size(dims: tuple[Dim, ...]) -> int:
    return math.prod(dim if isinstance(dim, int) else 1 for dim in dims)
