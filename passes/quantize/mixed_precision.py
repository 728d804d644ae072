"""Bits for each layer: as few as a budget asks for, where they cost least."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from deburr.ir.errors import DeburrError
from deburr.ir.graph import Graph
from deburr.ir.node import Node
from deburr.ir.types import QParams
from deburr.passes.core import Context, Pass
from deburr.passes.quantize.arithmetic import round_trip
from deburr.passes.quantize.dialects import find_dialect
from deburr.passes.quantize.placement import is_quantized
from deburr.passes.quantize.probe import Probe
from deburr.passes.quantize.scale_weights import scale_weight
from deburr.passes.quantize.sensitivity import SAMPLES, quantized_layers
from deburr.passes.quantize.weight_format import WeightFormat

FLOAT = "float"


@dataclass(frozen=True, eq=False)
class _Choice:
    bytes: float
    noise: float
    scheme: QParams | None  # None: the layer stays float


@dataclass(frozen=True)
class MixedPrecision(Pass):
    """Give each layer 4 bits, 8 or float weights, so that all weights fit a budget and the outputs change least.

    Every layer is rounded alone to find the noise that its width brings into the outputs; noises of layers add up. All start
    with 4 bits, then the layer that loses most noise for each byte more goes on, until the budget is spent. Goes behind
    scale-weights and before round-weights.

    :param budget: bytes of the integers, without their scales, relative to 8 bits for all layers.
    :param widths: what a layer may have, from few to many: 4, 8, float.
    :param keep: layers, by their names or those of their weights (patterns), that keep what scale-weights noted.
    :param samples: how many of the calibration samples are looked at.
    """

    name: ClassVar[str] = "mixed-precision"
    main_graph_only: ClassVar[bool] = True
    needs_data: ClassVar[bool] = True

    budget: float = 0.75
    widths: tuple[str, ...] = ("4", "8")
    keep: tuple[str, ...] = ()
    samples: int = SAMPLES
    dialect: str = "ort"

    def run(self, graph: Graph, context: Context) -> None:
        """:raises DeburrError: E203 for an option out of its range or an unknown dialect, E206 without calibration data."""
        self._check()
        if is_quantized(graph):
            context.remark(graph.name, "the model is quantized already")
            return
        layers = quantized_layers(graph, self.dialect)
        if not layers:
            context.remark(graph.name, "no layer is noted for rounding", "run calibrate and scale-weights first")
            return
        if any(node.subgraphs for node in graph.nodes):
            context.remark(graph.name, "bits are left as they are: the model holds subgraphs")
            return
        choices = self._choices(layers, context)
        for node, chosen in self._spend(choices, context).items():
            graph.set_qparams(node.input(1), choices[node][chosen].scheme)

    def _check(self) -> None:
        order = [width for width in ("4", "8", FLOAT) if width in self.widths]
        if not self.widths or tuple(order) != self.widths or self.samples < 1 or self.budget <= 0:
            raise DeburrError(
                "E203", "budget, widths or samples is out of range", where=f"pass {self}",
                hint="widths are some of (4,8,float) in this order, budget and samples are above 0",
            )  # fmt: skip

    def _choices(self, layers: list[Node], context: Context) -> dict[Node, list[_Choice]]:
        """What each layer may become, the smallest first."""
        if context.data is None:
            raise DeburrError("E206", "mixed-precision needs calibration data", hint="give --data FILE.npz")
        probe, dialect = Probe(context.model, context.data.take(self.samples)), find_dialect(self.dialect)
        found = {}
        for node in context.progress(layers, len(layers), "measuring sensitivity"):
            weights = node.input(1)
            array = np.asarray(weights.array, np.float32)
            assert weights.qparams is not None
            form = WeightFormat.of(weights.qparams)
            held = [weights.qparams] if self._is_kept(node) else [
                None if width == FLOAT else scale_weight(weights, [node], replace(form, bits=int(width)), dialect)
                for width in self.widths
            ]  # fmt: skip
            rounded = {str(i): (None, round_trip(array, scheme)) for i, scheme in enumerate(held) if scheme is not None}
            outputs = probe.run(node, rounded) if len(held) > 1 else {}
            noises = [probe.noise(outputs[str(i)]) if str(i) in outputs else 0.0 for i in range(len(held))]
            found[node] = [
                _Choice(array.size * (scheme.dtype.bits if scheme is not None else 32) / 8, noise, scheme)
                for scheme, noise in zip(held, noises, strict=True)
            ]
        return found

    def _is_kept(self, node: Node) -> bool:
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self.keep for name in (node.name, node.input(1).name))

    def _spend(self, choices: dict[Node, list[_Choice]], context: Context) -> dict[Node, int]:
        """The number of each layer's choice."""
        chosen = dict.fromkeys(choices, 0)
        whole = sum(int(np.prod(node.input(1).static_shape or ())) for node in choices)
        left = self.budget * whole - sum(options[0].bytes for options in choices.values())
        if left < 0:
            context.remark("budget", f"{self.budget:g} of the bytes of int8 is less than the smallest widths take")
        while steps := [step for node in choices if (step := _step(choices[node], chosen[node], node, left)) is not None]:
            _, node, number = max(steps, key=lambda step: step[0])
            left -= choices[node][number].bytes - choices[node][chosen[node]].bytes
            chosen[node] = number
        return chosen


def _step(options: list[_Choice], now: int, node: Node, left: float) -> tuple[float, Node, int] | None:
    """The wider choice that takes away most noise for each byte, of those that fit into what is left."""
    found = [
        ((options[now].noise - options[i].noise) / (options[i].bytes - options[now].bytes), i)
        for i in range(now + 1, len(options))
        if options[i].bytes - options[now].bytes <= left and options[i].noise < options[now].noise
    ]
    best = max(found, default=None)
    return None if best is None else (best[0], node, best[1])
