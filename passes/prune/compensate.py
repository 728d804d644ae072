"""Compensation: what pruning broke is mended by least squares on calibration data, without labels or training.

Layer after layer in topological order, the weights that are left are refitted so that the layer gives again what the model
before pruning gave there (He et al. 2017, "Channel pruning for accelerating very deep neural networks", eq. 5; bias as in
Nagel et al. 2019). Inputs come from the part that is already pruned and refitted, so errors do not add up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from deburr.ir.errors import DeburrError
from deburr.ir.graph import Graph
from deburr.ir.model import Model
from deburr.ir.node import Node
from deburr.ir.types import Array
from deburr.ir.value import Value
from deburr.passes.core import Context, Pass
from deburr.passes.linear.layers import Layer, layer_of, store
from deburr.passes.linear.regression import Moments, some_rows
from deburr.passes.linear.sweep import Sweep
from deburr.passes.prune.reference import Indices, Reference


@dataclass(frozen=True)
class Compensate(Pass):
    """Refit the weights that pruning left, layer by layer, against the model before pruning.

    `damping` pulls towards the weights as they are, relative to the mean variance of a layer's inputs. `rows` bounds how many
    output positions of a layer are looked at. Without a pruning pass before it, nothing happens.
    """

    name: ClassVar[str] = "compensate"
    idempotent: ClassVar[bool] = False
    main_graph_only: ClassVar[bool] = True
    needs_data: ClassVar[bool] = True
    tolerance: ClassVar[float | None] = None

    damping: float = 0.01
    rows: int = 65536
    batch: int = 16

    def run(self, graph: Graph, context: Context) -> None:
        """:raises DeburrError: E206 without calibration data, E203 for options out of range."""
        if context.data is None:
            raise DeburrError("E206", "compensation needs calibration data", where=f"pass {self}", hint="give --data FILE.npz")
        if self.damping < 0 or self.rows < 1 or self.batch < 1:
            raise DeburrError("E203", "damping, rows or batch is out of range", where=f"pass {self}")
        if context.reference is None:
            context.remark(f"graph {graph.name!r}", "nothing was pruned", "put compensate behind prune-channels")
            return
        layers = [layer for node in graph.nodes if (layer := self._layer(node, context)) is not None]
        sweeps = Sweep(context.model, context.data, self.batch), Sweep(context.reference.model, context.data, self.batch)
        for layer in context.progress(layers, len(layers), "compensate"):
            self._refit(layer, sweeps, context.reference, context)

    def _layer(self, node: Node, context: Context) -> Layer | None:
        if node.op not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            return None
        layer, reference = layer_of(node), context.reference
        assert reference is not None
        if isinstance(layer, str):
            context.remark(node, layer)
            return None
        if _find(reference.model, node.output()) is None:
            context.remark(node, "the model before pruning has no such layer")
            return None
        return layer

    def _refit(self, layer: Layer, sweeps: tuple[Sweep, Sweep], reference: Reference, context: Context) -> None:
        """:param sweeps: over the model as it is, and over the reference."""
        assert context.data is not None
        aim, moments, random = _aim(layer.node, reference), Moments(), context.random()
        pairs = zip(sweeps[0].values([layer.node.input(0), *aim.minus]), sweeps[1].values([aim.value]), strict=True)
        for now, (before,) in pairs:
            target = _select(before, reference.kept.get(aim.value.name, {}))
            for value in now[1:]:
                target = np.subtract(target, value)
            chosen = some_rows(layer.positions(now[0]), self.rows, (len(now[0]), len(context.data)), random)
            moments.add(layer.rows(now[0], chosen), layer.targets(target, chosen))
        store(layer, *moments.fit(layer.matrix(), self.damping))


@dataclass(frozen=True)
class _Aim:
    """What a layer is to give: `value` of the reference, less values of the model as it is."""

    value: Value
    minus: tuple[Value, ...] = ()


def _aim(node: Node, reference: Reference) -> _Aim:
    """The layer's own output, or the sum behind it if the other operand is done: then its errors are mended too."""
    output = node.output()
    own = _find(reference.model, output)
    assert own is not None
    consumers = output.consumers
    if len(output.uses) != 1 or output.is_output or consumers[0].op != "Add":
        return _Aim(own)
    add = consumers[0]
    others = [value for value in add.inputs if value is not None and value is not output]
    total = _find(reference.model, add.output())
    if total is None or len(others) != 1 or others[0].shape != output.shape or others[0].is_constant:
        return _Aim(own)
    return _Aim(total, (others[0],)) if _stands_before(others[0], node) else _Aim(own)


def _stands_before(value: Value, node: Node) -> bool:
    if value.producer is None:
        return True
    for other in node.owner.nodes:
        if other is node:
            return False
        if other is value.producer:
            return True
    return False


def _find(model: Model, value: Value) -> Value | None:
    try:
        return model.graph.value(value.name)
    except KeyError:
        return None


def _select(array: Array, kept: dict[int, Indices]) -> Array:
    for axis, indices in kept.items():
        array = array.take(indices, axis)
    return array
