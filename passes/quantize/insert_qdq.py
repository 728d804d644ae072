"""Emit the table of quantization parameters as QuantizeLinear and DequantizeLinear nodes: the last step of quantization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from deburr.ir.graph import Graph
from deburr.ir.model import Model
from deburr.ir.node import Node
from deburr.ir.opset import raise_opset
from deburr.ir.types import DType, QParams
from deburr.ir.value import Use, Value
from deburr.passes.core import Context, Pass
from deburr.passes.quantize.arithmetic import limits, quantize
from deburr.passes.quantize.dialects import Dialect, Role, find_dialect
from deburr.passes.quantize.emitter import Emitter
from deburr.passes.quantize.keep import forget, keep
from deburr.passes.quantize.placement import Placement, clamp_bounds, is_quantized, place
from deburr.passes.quantize.weighted import bias_of, output_channels, spread

NEWER = 21  # the opset whose quantizers know 4 and 16 bits, and blocks


@dataclass(frozen=True)
class InsertQdq(Pass):
    """Put QuantizeLinear and DequantizeLinear where the dialect wants them, and the weights into the file as integers.

    Every tensor keeps its name: the dequantized one carries it, and helpers are called q, s, z, … An activation function
    falls away where the quantizer behind it clamps identically. Inputs and outputs of the model stay float.

    :param keep: nodes that stay float, besides those that `calibrate` was told.
    """

    name: ClassVar[str] = "insert-qdq"
    main_graph_only: ClassVar[bool] = True
    minimum_opset: ClassVar[int] = 13  # scales along an axis
    tolerance: ClassVar[float | None] = None

    dialect: str = "ort"
    keep: tuple[str, ...] = ()

    def run(self, graph: Graph, context: Context) -> None:
        """:raises DeburrError: E203 for an unknown dialect, or a pattern of `keep` that matches nothing."""
        dialect = find_dialect(self.dialect)
        if is_quantized(graph):
            context.remark(graph.name, "the model is quantized already")
            return
        raise_for_types(context.model)
        keep(graph, self.keep, f"pass {self}")
        placement = place(graph, dialect)
        integer = integer_nodes(placement, dialect)
        _explain(graph, placement, integer, dialect, context)
        _Inserter(graph, placement, integer, dialect, context).run()
        for value in graph.values:
            graph.set_qparams(value, None)
        forget(graph)


def raise_for_types(model: Model) -> None:
    """Bring a model whose main graph is to have values of 4 or 16 bits, or scales in blocks, to an opset that has them."""
    if model.opset < NEWER and any(_is_newer(value.qparams) for value in model.graph.values):
        raise_opset(model, NEWER)


def _is_newer(qparams: QParams | None) -> bool:
    return qparams is not None and (qparams.dtype.bits not in (8, 32) or qparams.block_size is not None)


def integer_nodes(placement: Placement, dialect: Dialect) -> dict[Node, Role]:
    """The nodes whose values all have the parameters that they need."""
    return {node: role for node, role in placement.nodes.items() if _is_ready(node, role, placement, dialect)}


def _is_ready(node: Node, role: Role, placement: Placement, dialect: Dialect) -> bool:
    settled = [_settled(value, placement) for value in node.outputs if value is not None]
    given = [value for value in settled if value in placement.values]
    needed = [*placement.sources(node), *given]
    if role is Role.WEIGHTED:
        needed.append(node.input(1))
    if any(value.qparams is None for value in needed):
        return False
    is_shared = role is Role.MOVEMENT or node.op in dialect.one_scale
    return not is_shared or all(value.qparams == needed[0].qparams for value in needed)


def integer_readers(value: Value, placement: Placement, integer: dict[Node, Role]) -> list[Use]:
    """Where nodes that compute on integers read the value as data."""
    return [
        use for use in value.uses
        if use.node in integer and any(source is value for source in placement.sources(use.node))
    ]  # fmt: skip


def _settled(value: Value, placement: Placement) -> Value:
    """The value that gets the quantizer: behind the activation functions that it swallows."""
    for clamp, before in placement.clamps.items():
        if before is value:
            return _settled(clamp.output(), placement)
    return value


def _explain(graph: Graph, placement: Placement, integer: dict[Node, Role], dialect: Dialect, context: Context) -> None:
    """Say of every operator on float tensors why it was left."""
    for node in graph.nodes:
        if node in integer or node in placement.clamps or not _gives_float(node):
            continue
        if node in placement.nodes:
            context.remark(node, "left in float: its tensors were not calibrated", "run calibrate and scale-weights first")
        elif node in placement.refused:
            context.remark(node, f"left in float: {placement.refused[node]}")
        else:
            context.remark(node, f"left in float: no integer operator in the dialect {dialect.name}")


def _gives_float(node: Node) -> bool:
    return any(value is not None and value.dtype is not None and value.dtype.is_float for value in node.outputs)


class _Inserter:
    def __init__(
        self, graph: Graph, placement: Placement, integer: dict[Node, Role], dialect: Dialect, context: Context
    ) -> None:
        self.graph, self.placement, self.integer, self.dialect, self.context = graph, placement, integer, dialect, context
        self.emitter = Emitter(graph)
        self._weights: dict[Value, Value] = {}
        self._order = {node: index for index, node in enumerate(graph.nodes)}

    def run(self) -> None:
        for node, role in self.integer.items():
            if role is Role.WEIGHTED and node.op == "Conv":
                self._float_bias(node)
            if role is Role.WEIGHTED and not self.dialect.float_bias:
                self._bias(node)
        for node, role in self.integer.items():
            if role is Role.WEIGHTED:
                self._weight(node)
        for value in self.placement.values:
            readers = integer_readers(value, self.placement, self.integer)
            is_given = self.placement.origin(value) in self.integer
            if value.qparams is None or not (readers or is_given):
                continue
            if value.is_constant:
                self._constant(value, value.qparams, readers)
            elif is_given:
                self._given(value, value.qparams)
            else:
                self.emitter.quantize_for(value, value.qparams, readers)

    def _given(self, value: Value, qparams: QParams) -> None:
        """Quantize what an integer node gives, for all its readers, without the activation functions that clamp in vain."""
        source = value
        while source.producer in self.placement.clamps and _is_redundant(source.producer, qparams):
            source = self.placement.clamps[source.producer]
        clamp = source.producer
        if clamp in self.placement.clamps and clamp is not None and not self.dialect.symmetric:
            self.context.remark(clamp, "kept: the quantizer behind it clamps otherwise")
        self.emitter.replace(value, source, qparams)

    def _constant(self, value: Value, qparams: QParams, readers: list[Use]) -> None:
        """A constant that arithmetic reads, as integers in the file."""
        integers = quantize(np.asarray(value.array, np.float32), qparams)
        first = min((use.node for use in readers), key=self._order.__getitem__)
        dequantized = self.emitter.dequantized(value, integers, qparams, first)
        for use in readers:
            use.node.set_input(use.index, dequantized)
        self.emitter.drop(value, dequantized)

    def _weight(self, node: Node) -> None:
        weights = node.input(1)
        if weights not in self._weights:
            assert weights.qparams is not None
            integers = quantize(np.asarray(weights.array, np.float32), weights.qparams)
            self._weights[weights] = self.emitter.dequantized(weights, integers, weights.qparams, node)
        node.set_input(1, self._weights[weights])
        self.emitter.drop(weights, self._weights[weights])

    def _float_bias(self, node: Node) -> None:
        """A Conv with scales in blocks has a bias, of zeros if need be: that keeps ONNX Runtime 1.32 from making a QLinearConv
        of it, which knows no blocks and fails."""
        weights = node.input(1).qparams
        if weights is not None and weights.block_size is not None and bias_of(node) is None:
            node.set_input(2, self.graph.add_constant(np.zeros(output_channels(node), np.float32), "b"))

    def _bias(self, node: Node) -> None:
        """int32 with the scale of data times weights, which the accumulator has too; so adding it is exact."""
        bias, data, weights = bias_of(node), node.input(0).qparams, node.input(1).qparams
        if bias is None or bias.array is None or data is None or weights is None:
            return
        if weights.block_size is not None:
            self.context.remark(node, "its bias stays float: with scales in blocks no accumulator has its scale")
            return
        scale = spread(weights.scale, node) * data.scale
        smallest, largest = limits(DType.INT32)
        integers = np.clip(np.rint(bias.array.astype(np.float64) / scale), smallest, largest).astype(np.int32)
        qparams = QParams(scale, np.zeros(scale.shape, np.int32), DType.INT32, axis=0)
        dequantized = self.emitter.dequantized(bias, integers, qparams, node)
        node.set_input(2, dequantized)
        self.emitter.drop(bias, dequantized)


def _is_redundant(clamp: Node, qparams: QParams) -> bool:
    """Whether the bounds of an activation function are quantized to the ends of the integers, so that saturation does it."""
    bounds = clamp_bounds(clamp)
    if bounds is None:
        return False
    smallest, largest = limits(qparams.dtype, qparams.bits)
    with np.errstate(over="ignore"):
        low, high = quantize(np.asarray(bounds, np.float32), qparams)
    return int(low) == smallest and int(high) == largest
