"""Second-order rounding of layers in turn, each refitted on what the rounded layers before it give."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from deburr.ir.errors import DeburrError
from deburr.ir.graph import Graph
from deburr.ir.node import Node
from deburr.ir.types import Array, QParams
from deburr.passes.core import Context
from deburr.passes.linear.layers import Layer, Matrix, layer_of, store
from deburr.passes.linear.prefix import prefix
from deburr.passes.linear.regression import Moments, some_rows
from deburr.passes.linear.sweep import Sweep
from deburr.passes.quantize.arithmetic import along, limits, round_trip
from deburr.passes.quantize.second_order import round_matrix

BATCH = 16


@dataclass(frozen=True)
class Rounding:
    """How much is looked at.

    :param samples: how many of the calibration samples.
    :param rows: output positions of a layer, over all samples.
    :param damping: relative to the mean variance of a layer's inputs.
    """

    samples: int = 64
    rows: int = 65536
    damping: float = 0.01

    def check(self, where: str) -> None:
        """:raises DeburrError: E203 for a number out of its range."""
        if self.samples < 1 or self.rows < 1 or self.damping < 0:
            raise DeburrError("E203", "samples, rows or damping is out of range", where=where)

    def run(self, graph: Graph, nodes: Sequence[Node], context: Context) -> None:
        """Bring the weights of these nodes (of the main graph, in its order) onto the grid that their parameters name.

        Data with parameters of its own is rounded first; other data is taken as the model gives it. A remark names what is
        left for rounding to the nearest.
        """
        assert context.data is not None
        layers = [layer for node in nodes if (layer := _layer(node, context)) is not None]
        original = prefix(context.model, [layer.node.output() for layer in layers]) if layers else context.model
        if original is context.model and layers:
            context.remark(graph.name, "it holds subgraphs: weights are rounded to the nearest")
            return
        data = context.data.take(self.samples)
        sweeps = Sweep(context.model, data, BATCH), Sweep(original, data, BATCH)
        for layer in context.progress(layers, len(layers), "rounding weights"):
            wanted = [layer.node.input(0)], [original.graph.value(layer.node.output().name)]
            pairs = zip(*(sweep.values(values) for sweep, values in zip(sweeps, wanted, strict=True)), strict=True)
            self._round(layer, self._moments(layer, pairs, len(data), context))

    def run_where_data_is(self, graph: Graph, nodes: Sequence[Node], context: Context) -> None:
        """The same for passes that can do without data; a remark says that there was none."""
        if nodes and (context.data is None or not len(context.data)):
            hint = "give --data FILE.npz"
            context.remark(graph.name, "weights are rounded to the nearest: there is no calibration data", hint)
        elif nodes:
            self.run(graph, nodes, context)

    def _round(self, layer: Layer, moments: Moments) -> None:
        node, scheme = layer.node, layer.weight.qparams
        assert scheme is not None
        if node.op == "MatMul":  # no bias takes a mean: errors count from zero
            moments.x, moments.y = np.zeros_like(moments.x), np.zeros_like(moments.y)
        fitted, _ = moments.fit(layer.matrix(), self.damping)
        scale, bounds = _scales(layer, scheme)
        rounded = round_matrix(fitted, moments.centered()[0], scale, bounds, self.damping) * scale
        bias = (moments.y - (moments.x[:, None, :] @ rounded)[:, 0]) / moments.count
        store(layer, rounded, bias)
        if not np.array_equal(_on_grid(layer, scheme), np.asarray(layer.weight.array, np.float32)):
            node.owner.set_constant(layer.weight, _on_grid(layer, scheme))

    def _moments(self, layer: Layer, pairs: Iterable[tuple[list[Array], list[Array]]], count: int, context: Context) -> Moments:
        """Of the layer's inputs as they are now, and of its outputs in the float model."""
        moments, random, scheme = Moments(), context.random(), layer.node.input(0).qparams
        for (now,), (before,) in pairs:
            given = now if scheme is None else round_trip(np.asarray(now, np.float32), scheme)
            chosen = some_rows(layer.positions(now), self.rows, (len(now), count), random)
            moments.add(layer.rows(given, chosen), layer.targets(before, chosen))
        return moments


def _layer(node: Node, context: Context) -> Layer | None:
    layer, scheme = layer_of(node), node.input(1).qparams
    if isinstance(layer, str):
        context.remark(node, f"its weights are rounded to the nearest: {layer}")
        return None
    assert scheme is not None
    return None if np.array_equal(_on_grid(layer, scheme), np.asarray(layer.weight.array, np.float32)) else layer


def _on_grid(layer: Layer, scheme: QParams) -> Array:
    return round_trip(np.asarray(layer.weight.array, np.float32), scheme)


def _scales(layer: Layer, scheme: QParams) -> tuple[Matrix, tuple[Matrix, Matrix]]:
    """The step of each weight, and how many steps it may lie below and above zero, [groups, inputs, outputs] all.

    Without zero points as far below as above, as `symmetric` has it.
    """
    shape = layer.weight.static_shape or ()
    scale = layer.arranged(np.broadcast_to(along(scheme.scale, scheme, shape), shape).astype(np.float64))
    zero_point = layer.arranged(np.broadcast_to(along(scheme.zero_point, scheme, shape), shape).astype(np.float64))
    smallest, largest = limits(scheme.dtype, scheme.bits)
    return scale, (max(smallest, -largest) - zero_point, largest - zero_point)
