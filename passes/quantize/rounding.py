"""Second-order rounding of layers in turn, each refitted on what the rounded layers before it give."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from deburr.ir.errors import DeburrError
from deburr.ir.graph import Graph
from deburr.ir.node import Node
from deburr.ir.types import Array, QParams
from deburr.ir.value import Value
from deburr.passes.core import Context
from deburr.passes.linear.layers import Layer, Matrix, layer_of, store
from deburr.passes.linear.prefix import prefix
from deburr.passes.linear.regression import Moments, damped, some_rows
from deburr.passes.linear.sweep import Sweep
from deburr.passes.quantize.addends import other_addend
from deburr.passes.quantize.arithmetic import along, limits, round_trip
from deburr.passes.quantize.damping import choose_damping
from deburr.passes.quantize.descent import descend, refine
from deburr.passes.quantize.scale_weights import smallest_scale
from deburr.passes.quantize.second_order import Grid, round_matrix

BATCH = 4  # of the first layers, a sample may take several MB
APART = 4  # of so many samples, the last is kept apart to choose the damping


@dataclass(frozen=True)
class Rounding:
    """How much is looked at.

    :param samples: how many of the calibration samples.
    :param rows: output positions of a layer, over all samples.
    :param damping: relative to the mean variance of a layer's inputs, or chosen by samples kept apart.
    """

    samples: int = 96
    rows: int = 65536
    damping: float | Literal["auto"] = "auto"

    def check(self, where: str) -> None:
        """:raises DeburrError: E203 for a number out of its range."""
        if self.samples < 1 or self.rows < 1 or (self.damping != "auto" and self.damping < 0):
            raise DeburrError("E203", "samples, rows or damping is out of range", where=where)

    def run(self, graph: Graph, nodes: Sequence[Node], context: Context) -> None:
        """Bring the weights of these nodes (of the main graph, in its order) onto the grid that their parameters name.

        Data with parameters of its own is rounded first; other data is taken as the model gives it. A remark names what is
        left for rounding to the nearest.
        """
        assert context.data is not None
        layers = [layer for node in nodes if (layer := _layer(node, context)) is not None]
        tasks = [_Task.of(layer, layers[index:]) for index, layer in enumerate(layers)]
        original = prefix(context.model, [task.wanted for task in tasks]) if tasks else context.model
        if original is context.model and tasks:
            context.remark(graph.name, "it holds subgraphs: weights are rounded to the nearest")
            return
        data = context.data.take(self.samples)
        sweeps = Sweep(context.model, data, BATCH), Sweep(original, data, BATCH)
        for task in context.progress(tasks, len(tasks), "rounding weights"):
            wanted = task.read, [original.graph.value(task.wanted.name)]
            pairs = zip(*(sweep.values(values) for sweep, values in zip(sweeps, wanted, strict=True)), strict=True)
            self._round(task, *self._moments(task, pairs, len(data), context))

    def run_where_data_is(self, graph: Graph, nodes: Sequence[Node], context: Context) -> None:
        """The same for passes that can do without data; a remark says that there was none."""
        if nodes and (context.data is None or not len(context.data)):
            hint = "give --data FILE.npz"
            context.remark(graph.name, "weights are rounded to the nearest: there is no calibration data", hint)
        elif nodes:
            self.run(graph, nodes, context)

    def _round(self, task: _Task, seen: Moments, apart: Moments) -> None:
        layer, scheme = task.layer, task.scheme
        moments = seen.plus(apart) if apart.count else seen
        for part in (seen, apart, moments) if layer.node.op == "MatMul" else ():  # no bias takes a mean: errors count from zero
            part.x, part.y = np.zeros_like(part.x), np.zeros_like(part.y)
        weight, grid = layer.matrix(), _grid(layer, scheme)
        damping = choose_damping(weight, grid, seen, apart) if self.damping == "auto" else self.damping
        fitted, metric = moments.fit(weight, damping)[0], damped(moments.centered()[0], damping)
        integers = round_matrix(fitted, metric, grid)
        if task.bits < 8 and task.has_free_scales:
            integers, grid = refine(fitted, metric, integers, grid, task.floor())
            layer.node.owner.set_qparams(layer.weight, replace(scheme, scale=grid.scale.reshape(-1).astype(np.float32)))
        elif task.bits < 8:
            integers = descend(fitted, metric, integers, grid)
        rounded = grid.weights(integers)
        bias = (moments.y - (moments.x[:, None, :] @ rounded)[:, 0]) / moments.count
        store(layer, rounded, bias)
        if not np.array_equal(_on_grid(layer), np.asarray(layer.weight.array, np.float32)):
            layer.node.owner.set_constant(layer.weight, _on_grid(layer))

    def _moments(
        self, task: _Task, pairs: Iterable[tuple[list[Array], list[Array]]], count: int, context: Context
    ) -> tuple[Moments, Moments]:
        """Of the layer's rounded inputs as they are now and of what it is to give; the samples kept apart on their own."""
        parts, random, layer, first = (Moments(), Moments()), context.random(), task.layer, 0
        for now, (before,) in pairs:
            given, *others = (_rounded(x, value.qparams) for x, value in zip(now, task.read, strict=True))
            positions, samples = layer.positions(now[0]), len(now[0])
            chosen = some_rows(positions, self.rows, (samples, count), random)
            x, y = layer.rows(given, chosen), layer.targets(np.subtract(before, *others) if others else before, chosen)
            sample = first + np.arange(positions)[chosen] * samples // positions
            is_apart = sample % APART == APART - 1 if self.damping == "auto" else np.zeros(len(sample), bool)
            for moments, mask in zip(parts, (~is_apart, is_apart), strict=True):
                if mask.any():
                    moments.add(x[:, mask], y[:, mask])
            first += samples
        return parts


@dataclass(frozen=True, slots=True, eq=False)
class _Task:
    """A layer, how its weights become integers, what it reads or is added to, and the value that is to come out in the end."""

    layer: Layer
    scheme: QParams
    read: list[Value]
    wanted: Value

    @classmethod
    def of(cls, layer: Layer, pending: Sequence[Layer]) -> _Task:
        node, scheme = layer.node, layer.weight.qparams
        assert scheme is not None
        addend = other_addend(node, [other.node for other in pending])
        if addend is None:
            return cls(layer, scheme, [node.input(0)], node.output())
        return cls(layer, scheme, [node.input(0), addend], node.output().consumers[0].output())

    @property
    def bits(self) -> int:
        return self.scheme.bits or self.scheme.dtype.bits

    @property
    def has_free_scales(self) -> bool:
        """Whether each output has a scale of its own, to which no zero point is bound."""
        return self.scheme.axis is not None and self.scheme.block_size is None and not self.scheme.zero_point.any()

    def floor(self) -> Matrix:
        """What no scale may fall below, [groups, 1, outputs]."""
        return smallest_scale(self.layer.node, self.scheme.scale.shape).reshape(self.layer.groups, 1, -1)


def _layer(node: Node, context: Context) -> Layer | None:
    layer, scheme = layer_of(node), node.input(1).qparams
    if isinstance(layer, str):
        context.remark(node, f"its weights are rounded to the nearest: {layer}")
        return None
    assert scheme is not None
    return None if np.array_equal(_on_grid(layer), np.asarray(layer.weight.array, np.float32)) else layer


def _on_grid(layer: Layer) -> Array:
    return _rounded(np.asarray(layer.weight.array), layer.weight.qparams)


def _rounded(array: Array, scheme: QParams | None) -> npt.NDArray[np.float32]:
    numbers = np.asarray(array, np.float32)
    return numbers if scheme is None else round_trip(numbers, scheme)


def _grid(layer: Layer, scheme: QParams) -> Grid:
    """Signed integers of 8 bits are symmetric; of fewer, the one below is worth having."""
    shape, (smallest, largest) = layer.weight.static_shape or (), limits(scheme.dtype, scheme.bits)
    if (scheme.bits or scheme.dtype.bits) >= 8 and smallest < 0:
        smallest = -largest
    scale, zero_point = (
        layer.arranged(np.broadcast_to(one, shape).astype(np.float64))
        for one in (along(scheme.scale, scheme, shape), along(scheme.zero_point, scheme, shape))
    )
    if scheme.block_size is None:  # all inputs share them
        scale, zero_point = scale[:, :1], zero_point[:, :1]
    return Grid(scale, smallest - zero_point, largest - zero_point)
