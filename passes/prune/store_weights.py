"""Sparse and clustered weights in a form that makes the file smaller."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from deburr.ir.graph import Graph
from deburr.ir.node import Node
from deburr.ir.ops import imports_of, owning_function
from deburr.ir.types import DType
from deburr.ir.value import Value
from deburr.passes.core import Context, Pass
from deburr.passes.prune.encodings import Indexed, Masked, indexed, masked
from deburr.passes.prune.weight_tensors import weight_tensors

_GATHER, _UNMASK = 256, 1024  # bytes that the nodes which unpack a weight take in a file, about


@dataclass(frozen=True)
class StoreWeights(Pass):
    """Store weights that have many zeros or few values in less space, unpacked by standard operators when a model is loaded.

    Few values (after `cluster-weights`) become indices of 4, 8 or 16 bits into a table; 4 bits need opset 21.
    Many zeros (after `prune-weights`) become a bitmask and the other elements, themselves as indices where they have few
    values. Each weight takes the smallest form, or stays dense where none pays. The elements keep their bits, except that -0
    becomes 0. Goes last: passes see weights only while they are constants, and `fold-constants` makes them dense again.
    """

    name: ClassVar[str] = "store-weights"
    minimum_opset: ClassVar[int] = 11  # BitShift, CumSum
    tolerance: ClassVar[float | None] = 0.0

    def run(self, graph: Graph, context: Context) -> None:
        for weight in weight_tensors(graph):
            if not weight.value.is_output and not self._store(weight.value, context):
                context.remark(weight.value, "stays dense: it has too few zeros and too many values for another form to pay")

    def _store(self, value: Value, context: Context) -> bool:
        """Whether a compact form paid."""
        assert value.constant is not None
        graph, array = value.graph, value.constant.array
        four_bits = imports_of(owning_function(graph, context.model), context.model)[""] >= 21
        few, mask = indexed(array, four_bits=four_bits), masked(array)
        values = indexed(mask.values.array, four_bits=four_bits)
        if values is not None and values.nbytes >= mask.values.nbytes:
            values = None
        dense = value.constant.nbytes
        by_indices = few.nbytes + _GATHER if few is not None else dense
        by_mask = mask.bits.nbytes + (mask.values if values is None else values).nbytes + _UNMASK
        if min(by_indices, by_mask) >= dense:
            return False
        if few is not None and by_indices <= by_mask:
            _replace(value, _gather(graph, few, value.name))
        else:
            _replace(value, _unmask(graph, mask, values, value))
        return True


def _replace(value: Value, node: Node) -> None:
    """Let everything read what the node computes, under the name that the weight had."""
    graph, name = value.graph, value.name
    graph.set_type(node.output(), value.type)
    value.replace_uses(node.output())
    graph.remove_value(value)
    graph.rename(node.output(), name)


class _Front:
    """Adds nodes before all others of a graph, in order."""

    def __init__(self, graph: Graph, base: str) -> None:
        self.graph, self.base, self.first = graph, base, next(iter(graph.nodes))

    def constant(self, array: object, what: str) -> Value:
        return self.graph.add_constant(array, f"{self.base}_{what}")  # type: ignore[arg-type]

    def node(self, op: str, *inputs: Value, **attributes: object) -> Value:
        return self.last(op, *inputs, **attributes).output()

    def last(self, op: str, *inputs: Value, **attributes: object) -> Node:
        outputs = [f"{self.base}_{op.lower()}"]
        return self.graph.add_node(op, inputs, outputs, attributes, before=self.first)


def _gather(graph: Graph, form: Indexed, base: str) -> Node:
    front = _Front(graph, base)
    table, indices = front.constant(form.table, "table"), front.constant(form.indices, "indices")
    return front.last("Gather", table, front.node("Cast", indices, to=int(DType.INT32)))


def _unmask(graph: Graph, form: Masked, values: Indexed | None, weight: Value) -> Node:
    """Bit k of the mask, times the count of ones up to it, is the place of element k among a zero and the nonzeros."""
    assert weight.constant is not None
    front, size = _Front(graph, weight.name), weight.constant.size
    if values is None:
        elements = front.constant(form.values, "values")
    else:
        elements = _gather(graph, values, f"{weight.name}_values").output()
    bits, shifts = front.constant(form.bits, "bits"), front.constant(np.arange(8, dtype=np.uint8), "shifts")
    shifted = front.node("BitShift", bits, shifts, direction="RIGHT")
    ones = front.node("Mod", shifted, front.constant(np.uint8(2), "two"))
    flat = front.node("Reshape", ones, front.constant(np.array([-1], np.int64), "flat"))
    mask = front.node("Cast", flat, to=int(DType.INT32))
    if size % 8:
        begin, end = (front.constant(np.array([bound], np.int64), "bound") for bound in (0, size))
        mask = front.node("Slice", mask, begin, end)
    count = front.node("CumSum", mask, front.constant(np.int64(0), "axis"))
    places = front.node("Mul", mask, count)
    dense = front.node("Gather", elements, places)
    return front.last("Reshape", dense, front.constant(np.array(weight.constant.shape, np.int64), "shape"))
