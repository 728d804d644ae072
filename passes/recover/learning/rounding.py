"""A module that rounds where the quantized model will: at the places that `insert-qdq` puts quantizers, and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch

from deburr.ir.graph import Graph
from deburr.ir.node import Node
from deburr.ir.types import QParams
from deburr.ir.value import Value
from deburr.passes.quantize.arithmetic import round_trip
from deburr.passes.quantize.dialects import Dialect, Role
from deburr.passes.quantize.insert_qdq import integer_nodes, integer_readers
from deburr.passes.quantize.placement import Placement, place
from deburr.passes.quantize.scale_weights import smallest_scale
from deburr.passes.quantize.weighted import bias_of, output_channels
from deburr.passes.recover.learning.fake_quantize import FakeBias, FakeQuantize
from deburr.passes.recover.learning.module import TorchModel


@dataclass
class Rounding:
    """The quantizers of a module: those of activations by the value whose parameters they are, those of weights."""

    dialect: Dialect
    placement: Placement
    integer: dict[Node, Role]
    activations: dict[Value, FakeQuantize] = field(default_factory=dict)
    weights: dict[Value, FakeQuantize] = field(default_factory=dict)

    def note(self, graph: Graph) -> None:
        """Write the learnt scales to the values of the graph, and bring its weights to their grid."""
        for value, source in self.placement.values.items():
            if source in self.activations and value.qparams is not None:
                graph.set_qparams(value, self.activations[source].qparams)
        for weights, quantizer in self.weights.items():
            users = [node for node in self.integer if self.integer[node] is Role.WEIGHTED and node.input(1) is weights]
            qparams = self._with_room_for_biases(quantizer.qparams, users)
            graph.set_qparams(weights, qparams)
            graph.set_constant(weights, round_trip(np.asarray(weights.array, np.float32), qparams))

    def _with_room_for_biases(self, qparams: QParams, users: list[Node]) -> QParams:
        scale = qparams.scale.astype(np.float64)
        for node in () if self.dialect.float_bias or qparams.block_size is not None else users:
            scale = np.maximum(scale, smallest_scale(node, scale.shape))
        return replace(qparams, scale=scale.astype(np.float32))


def round_as(module: TorchModel, dialect: Dialect) -> Rounding | None:
    """Let a module round as the dialect has it, by the scales noted on the values of its model; None where none are noted."""
    graph = module.model.graph
    placement = place(graph, dialect)
    rounding = Rounding(dialect, placement, integer_nodes(placement, dialect))
    for value, source in placement.values.items():
        readers = integer_readers(value, placement, rounding.integer)
        given = placement.origin(value) in rounding.integer
        if value.qparams is None or not (readers or given):
            continue
        quantizer = rounding.activations.setdefault(source, FakeQuantize(value.qparams))
        if given and not value.is_constant:
            module.on_value[value] = quantizer
        else:
            module.on_read.update({(use.node, use.index): quantizer for use in readers})
    for node, role in rounding.integer.items():
        if role is Role.WEIGHTED:
            _round_layer(module, node, rounding)
    module.quantizers = torch.nn.ModuleList([*rounding.activations.values(), *rounding.weights.values()])
    return rounding if rounding.weights else None


def _round_layer(module: TorchModel, node: Node, rounding: Rounding) -> None:
    weights, bias = node.input(1), bias_of(node)
    assert weights.qparams is not None
    quantizer = rounding.weights.setdefault(weights, FakeQuantize(weights.qparams))
    module.on_read[node, 1] = quantizer
    data = rounding.activations[rounding.placement.values[node.input(0)]]
    if bias is not None and not (rounding.dialect.float_bias or quantizer.has_blocks):
        module.on_read[node, 2] = FakeBias(data, quantizer, output_channels(node))
