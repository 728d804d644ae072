"""Weights as integers in the file, and everything else in float."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from deburr.ir.graph import Graph
from deburr.ir.node import Node
from deburr.ir.ops import imports_of, owning_function
from deburr.ir.opset import raise_opset
from deburr.ir.types import DType, QParams
from deburr.passes.core import Context, Pass
from deburr.passes.quantize.arithmetic import quantize
from deburr.passes.quantize.emitter import Emitter
from deburr.passes.quantize.rounding import Rounding
from deburr.passes.quantize.scale_weights import fitted_range
from deburr.passes.quantize.weight_format import WeightFormat
from deburr.passes.quantize.weight_uses import StoredWeight, stored_weights

PER_CHANNEL, FOUR_BITS = 13, 21  # the opsets whose DequantizeLinear takes scales along an axis, and 4-bit integers
_NODES = 256  # bytes that a DequantizeLinear takes in a file, about


@dataclass(frozen=True)
class QuantizeWeights(Pass):
    """Store weights as integers with a DequantizeLinear in front of the layer; activations stay float, and no data is needed.

    Symmetric, a scale for each output channel. Takes all weights of convolutions, matrix products and recurrent layers, and the
    tables of Gather, which then looks integers up and has a DequantizeLinear behind it, with a scale for each column.

    :param bits: 8, or 4 in files of opset 21; tables keep 8. With 4, the scale is the one that loses least in the mean square.
    :param rounding: second-order looks at calibration data where there is some, as `round-weights` does, on float inputs.
    :param smallest: layers with fewer weights than this for each output keep 8 bits.
    """

    name: ClassVar[str] = "quantize-weights"
    minimum_opset: ClassVar[int] = PER_CHANNEL
    tolerance: ClassVar[float | None] = None

    bits: Literal[8, 4] = 8
    rounding: Literal["second-order", "nearest"] = "second-order"
    smallest: int = 32

    def run(self, graph: Graph, context: Context) -> None:
        """:raises DeburrError: E304 for weights that are NaN or infinite."""
        function = owning_function(graph, context.model)
        if imports_of(function, context.model).get("", 0) < PER_CHANNEL:
            context.remark(graph.name, f"the function imports an opset before {PER_CHANNEL}: its weights stay float")
            return
        if self.bits == 4 and function is None and any(self._is_narrow(weight) for weight in _weights(graph)):
            raise_opset(context.model, FOUR_BITS)
        has_four = imports_of(function, context.model)[""] >= FOUR_BITS
        weights = self._worthwhile(graph, has_four, context)
        for weight, dtype in weights:
            form = WeightFormat(dtype.bits)
            graph.set_qparams(weight.value, form.qparams(*fitted_range(weight.value, form, weight.axis), weight.axis))
        if graph is context.model.graph and self.rounding == "second-order":
            readers = {use.node for weight, _ in weights for use in weight.uses if use.index == 1 and not weight.is_table}
            Rounding().run_where_data_is(graph, [node for node in graph.nodes if node in readers], context)
        emitter = Emitter(graph)
        for weight, _ in weights:
            _store(weight, emitter)

    def _is_narrow(self, weight: StoredWeight) -> bool:
        """Whether 4 bits do."""
        assert weight.value.constant is not None
        return not weight.is_table and weight.value.constant.size >= self.smallest * max(weight.channels, 1)

    def _worthwhile(self, graph: Graph, has_four: bool, context: Context) -> list[tuple[StoredWeight, DType]]:
        """The weights that get smaller, each a value of its own, with the type that they become."""
        found, seen = [], set()
        for weight in stored_weights(graph):
            if isinstance(weight, tuple):
                context.remark(*weight)
                continue
            dtype = DType.INT4 if self.bits == 4 and has_four and self._is_narrow(weight) else DType.INT8
            assert weight.value.constant is not None
            if _bytes(weight, dtype) >= weight.value.constant.nbytes:
                context.remark(weight.value, "stays float: as integers it would not be smaller")
                continue
            if weight.value in seen:
                weight.value = graph.add_constant(weight.value.constant, weight.value.name)
                for use in weight.uses:
                    use.node.set_input(use.index, weight.value)
            seen.add(weight.value)
            found.append((weight, dtype))
        return found


def _weights(graph: Graph) -> Iterable[StoredWeight]:
    return (weight for weight in stored_weights(graph) if isinstance(weight, StoredWeight))


def _bytes(weight: StoredWeight, dtype: DType) -> int:
    assert weight.value.constant is not None
    return weight.value.constant.size * dtype.bits // 8 + weight.channels * (4 + 1) + _NODES


def _store(weight: StoredWeight, emitter: Emitter) -> None:
    value, qparams = weight.value, weight.value.qparams
    assert qparams is not None
    integers = quantize(np.asarray(value.array, np.float32), qparams)
    value.graph.set_qparams(value, None)
    if weight.is_table:
        stored = value.graph.add_constant(integers, "q")
        for use in weight.uses:
            use.node.set_input(0, stored)
            _dequantize_gathered(use.node, qparams, emitter if use.node.owner is value.graph else Emitter(use.node.owner))
        emitter.drop(value, stored)
        return
    heir = emitter.dequantized(value, integers, qparams, _first_reader(weight))
    for use in weight.uses:
        use.node.set_input(use.index, heir)
    emitter.drop(value, heir)


def _dequantize_gathered(node: Node, qparams: QParams, emitter: Emitter) -> None:
    """Columns of the table are the last axis of what is looked up."""
    rank = len(node.output().shape or ())
    along = QParams(qparams.scale, qparams.zero_point, qparams.dtype, rank - 1)
    emitter.dequantize_behind(node.output(), along)


def _first_reader(weight: StoredWeight) -> Node:
    """In the graph of the weight: the first node that reads it, or holds a subgraph that does."""
    readers = {_holder(use.node, weight.value.graph) for use in weight.uses}
    return next(node for node in weight.value.graph.nodes if node in readers)


def _holder(node: Node, graph: Graph) -> Node:
    while node.owner is not graph:
        assert node.owner.parent is not None
        node = node.owner.parent
    return node
