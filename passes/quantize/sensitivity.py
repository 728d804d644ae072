"""Which layers cost most when they become integers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deburr.ir.fidelity import accuracy
from deburr.ir.graph import Graph
from deburr.ir.node import Node
from deburr.ir.samples import Samples
from deburr.ir.types import Array
from deburr.passes.core import Context
from deburr.passes.quantize.arithmetic import round_trip
from deburr.passes.quantize.dialects import Role, find_dialect
from deburr.passes.quantize.placement import place
from deburr.passes.quantize.probe import Probe, decibels

SAMPLES = 32


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """One layer, rounded alone: the noise it brings into the outputs (relative power), its bits, and the share of correct
    labels that it costs (None without labels)."""

    node: Node
    bits: int
    noise: float
    loss: float | None

    @property
    def sqnr_db(self) -> float:
        return decibels(self.noise)


def quantized_layers(graph: Graph, dialect: str) -> list[Node]:
    """The layers whose data and weights have quantization parameters, with weights that nothing else reads."""
    roles = place(graph, find_dialect(dialect)).nodes
    layers = [node for node, role in roles.items() if role is Role.WEIGHTED]
    return [
        node
        for node in layers
        if node.input(0).qparams is not None and node.input(1).qparams is not None and len(node.input(1).uses) == 1
    ]


def sensitivities(graph: Graph, context: Context, samples: int = SAMPLES, dialect: str = "ort") -> list[Sensitivity]:
    """Every layer that `calibrate` and `scale-weights` noted, the costliest first; weights round to the nearest integer.

    :param samples: how many of the calibration samples are looked at.
    :raises DeburrError: E108 where the model does not run. A graph with subgraphs gives a remark and nothing.
    """
    layers = quantized_layers(graph, dialect)
    if context.data is None or not layers:
        return []
    if any(node.subgraphs for node in graph.nodes):
        context.remark(graph.name, "sensitivity is not measured: the model holds subgraphs")
        return []
    data = context.data.take(samples)
    probe, found = Probe(context.model, data), []
    for node in context.progress(layers, len(layers), "measuring sensitivity"):
        scheme, weights = node.input(0).qparams, node.input(1)
        assert weights.qparams is not None
        rounded = round_trip(np.asarray(weights.array, np.float32), weights.qparams)
        outputs = probe.run(node, {"": (scheme, rounded)})[""]
        found.append(
            Sensitivity(
                node, weights.qparams.bits or weights.qparams.dtype.bits, probe.noise(outputs), _loss(probe, outputs, data)
            )
        )
    return sorted(found, key=lambda one: -one.noise)


def _loss(probe: Probe, outputs: dict[str, Array], data: Samples) -> float | None:
    """How much less often the first output with scores is right."""
    for name, array in outputs.items():
        if array.ndim == 2:
            before, after = (accuracy(scores, data.labels) for scores in (probe.outputs[name], array))
            return None if before is None or after is None else before - after
    return None
