"""SmoothQuant: activation channels that stick out hand their range on to the weights that read them.

Xiao, Lin, Seznec, Wu, Demouth, Han: "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language Models",
ICML 2023, equation 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from deburr.ir.errors import DeburrError
from deburr.ir.graph import Graph
from deburr.ir.node import Node
from deburr.ir.value import Use, Value
from deburr.passes.core import Context, Pass
from deburr.passes.linear.activations import activations
from deburr.passes.quantize.channel_scales import (
    Floats,
    Source,
    divide_source,
    find_source,
    multiply_reader,
    reader_ranges,
    reader_refusal,
)

WORTH_IT = 1e-2  # of the logarithm of a factor
LAYERS = {"linear": ("Gemm", "MatMul"), "conv": ("Conv",), "depthwise": ("Conv",), "all": ("Conv", "Gemm", "MatMul")}


@dataclass(frozen=True)
class SmoothActivations(Pass):
    """Divide each channel that layers read by s = max|x|^alpha / max|w|^(1 - alpha), and multiply their weights by s.

    The division goes into what gives the channels: a LayerNormalization (fused, or its scale and shift), a constant factor or
    divisor, a layer in front. Where nothing there takes it, or something else reads the value too, it is left with a remark, or
    a Mul is inserted. Depthwise convolutions have a scale of their own for the weights of each channel, and so take all of the
    range. Outputs are the same up to rounding in float.

    :param alpha: from 0, all range stays in the activations, to 1, all goes to the weights.
    :param layers: Gemm and MatMul (linear), Conv, only those that are depthwise, or all of them.
    :param insert: put a Mul in front of the layers where the division has no other place.
    """

    name: ClassVar[str] = "smooth-activations"
    main_graph_only: ClassVar[bool] = True
    needs_data: ClassVar[bool] = True

    alpha: float = 0.5
    layers: Literal["linear", "conv", "depthwise", "all"] = "linear"
    insert: bool = False

    def run(self, graph: Graph, context: Context) -> None:
        """:raises DeburrError: E203 for an alpha outside [0, 1], and what `linear.activations` raises."""
        if not 0 <= self.alpha <= 1:
            raise DeburrError("E203", f"an alpha of {self.alpha:g}", where=self.name, hint="give a number from 0 to 1")
        readers = self._readers(graph)
        ranges = _ranges(readers, context)
        for value, uses in readers.items():
            factors = self._factors(ranges[value], [use.node for use in uses])
            if np.abs(np.log(factors)).max(initial=0) >= WORTH_IT:
                self._smooth(value, uses, factors, context)

    def _readers(self, graph: Graph) -> dict[Value, list[Use]]:
        """The values that such layers with constant weights read as data, with those uses."""
        found: dict[Value, list[Use]] = {}
        for node in graph.nodes:
            if not self._is_meant(node) or node.input(0).is_constant or reader_refusal(node, 0):
                continue
            value = node.input(0)
            if value.graph is graph and value.qparams is None and node.input(1) is not value:
                found.setdefault(value, []).append(Use(node, 0))
        return found

    def _is_meant(self, node: Node) -> bool:
        return node.op in LAYERS[self.layers] and (self.layers != "depthwise" or _is_depthwise(node))

    def _factors(self, activation: Floats, nodes: list[Node]) -> Floats:
        """s for each channel; 1 where the channel, or what the weights make of it, is zero."""
        weight = np.max([reader_ranges(node) for node in nodes], axis=0)
        alive = (activation > 0) & (weight > 0)
        x, w = np.where(alive, activation, 1), np.where(alive, weight, 1)
        alpha = 1 if all(_is_depthwise(node) for node in nodes) else self.alpha
        factors: Floats = x**alpha / w ** (1 - alpha)
        return np.where(alive, factors, 1)

    def _smooth(self, value: Value, uses: list[Use], factors: Floats, context: Context) -> None:
        source = _source(value, uses)
        if isinstance(source, Source):
            divide_source(source, factors)
        elif self.insert:
            _insert(value, uses, factors)
        else:
            hint = "insert=true puts a Mul there"
            context.remark(uses[0].node, f"its data was not smoothed: {source}", hint)
            return
        for use in uses:
            multiply_reader(use.node, factors)


def _is_depthwise(node: Node) -> bool:
    """Whether every output channel reads one input channel."""
    return node.op == "Conv" and (node.input(1).static_shape or (0, 0))[1] == 1


def _source(value: Value, uses: list[Use]) -> Source | str:
    """Where the division goes, or why it has no place."""
    others = [use.node for use in value.uses if use not in uses]
    if others:
        return f"{others[0]!r} reads {value.name} too"
    source = find_source(value, uses[0].node)
    if isinstance(source, Source) and source.clips:
        return f"{source.clips[0]!r} stands in front"
    if isinstance(source, Source) and source.repeats > 1:
        return "a Flatten stands in front"
    return source


def _ranges(readers: Mapping[Value, list[Use]], context: Context) -> dict[Value, Floats]:
    """The largest magnitude of each channel over the calibration data."""
    found: dict[Value, Floats] = {}
    for batch in activations(list(readers), context, "measuring channels") if readers else ():
        for value, array in batch.items():
            axis = 1 if readers[value][0].node.op == "Conv" else array.ndim - 1
            others = tuple(other for other in range(array.ndim) if other != axis)
            largest = np.abs(array).max(axis=others, initial=0).astype(np.float64)
            found[value] = np.maximum(found.get(value, 0), largest)
    return found


def _insert(value: Value, uses: list[Use], factors: Floats) -> None:
    graph, first = value.graph, uses[0].node
    trailing = len(first.input(1).static_shape or ()) - 2 if first.op == "Conv" else 0
    constant = graph.add_constant((1 / factors).reshape(-1, *[1] * trailing).astype(np.float32), "smoothing")
    scaled = graph.add_node("Mul", [value, constant], before=first).output()
    graph.set_type(scaled, value.type)
    for use in uses:
        use.node.set_input(0, scaled)
