"""Where float weights can stand as integers with a DequantizeLinear behind them, and along which axis scales lie."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from deburr.ir.graph import Graph
from deburr.ir.node import Node
from deburr.ir.types import DType
from deburr.ir.value import Use, Value
from deburr.passes.clean.common import is_standard

_LAYERS = {"Conv": 0, "ConvTranspose": 1, "DeformConv": 0}
_RECURRENT = ("GRU", "LSTM", "RNN")


@dataclass
class StoredWeight:
    """A constant, and the inputs that read it with scales along one axis.

    :param axis: where output channels lie; of a table, its columns.
    :param uses: in subgraphs too. A table is read by Gather alone: there, integers are looked up and dequantized afterwards.
    """

    value: Value
    axis: int
    is_table: bool
    uses: list[Use] = field(default_factory=list)

    @property
    def channels(self) -> int:
        return (self.value.static_shape or ())[self.axis]


def stored_weights(graph: Graph) -> Iterator[StoredWeight | tuple[Value, str]]:
    """The weights among the float constants of a graph, in its order, or why one cannot become integers.

    Constants that no operator takes as weights are passed over in silence. A constant that is read along different axes comes
    once for each.
    """
    for value in graph.constants:
        if value.dtype is not DType.FLOAT or value.qparams is not None or len(value.shape or ()) < 2:
            continue
        found: dict[tuple[int, bool], StoredWeight] = {}
        others = [use.node for use in value.uses if not _collect(use, value, found)]
        if found and (others or value.is_output):
            reader = repr(others[0]) if others else "the caller"
            yield value, f"stays float: {reader} reads it too"
        elif found:
            yield from found.values()


def _collect(use: Use, value: Value, found: dict[tuple[int, bool], StoredWeight]) -> bool:
    axis, is_table = weight_axis(use.node, use.index), use.node.op == "Gather"
    if axis is None:
        return False
    found.setdefault((axis, is_table), StoredWeight(value, axis, is_table)).uses.append(use)
    return True


def weight_axis(node: Node, index: int) -> int | None:
    """The axis of input number `index` along which output channels lie, or None where the node takes no weights there."""
    if not is_standard(node, node.op):
        return None
    rank, axis = len(node.input(index).shape or ()), None
    if index == 1:
        axis = _LAYERS.get(node.op)
    if node.op == "Gemm" and index < 2:
        axis = _outer(index, bool(node.get("transB" if index else "transA", 0)))
    elif node.op == "MatMul":
        axis = rank - 2 + index
    elif node.op in _RECURRENT and index in (1, 2):
        axis = 1
    elif node.op == "Gather" and index == 0:
        is_known = node.output().shape is not None
        axis = 1 if rank == 2 and node.get("axis", 0) == 0 and is_known else None
    return axis


def _outer(index: int, transposed: bool) -> int:
    """Of a matrix product: the axis of a factor that the result keeps."""
    return index if not transposed else 1 - index
