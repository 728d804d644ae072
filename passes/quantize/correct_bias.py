"""Take the mean error that rounding brings into each layer out of its bias.

Nagel, van Baalen, Blankevoort, Welling: "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019,
section 4.2, with means that are measured rather than derived. One layer after the other, as in Nagel et al. 2021, "A White
Paper on Neural Network Quantization", section 3.3 (empirical bias correction).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from deburr.ir.errors import DeburrError
from deburr.ir.evaluate import Evaluator
from deburr.ir.graph import Graph
from deburr.ir.model import Model
from deburr.ir.node import Node
from deburr.ir.types import Array, DType, TensorType
from deburr.ir.value import Value
from deburr.passes.core import Context, Pass
from deburr.passes.linear.activations import activations
from deburr.passes.linear.sweep import Sweep
from deburr.passes.quantize.arithmetic import round_trip
from deburr.passes.quantize.dialects import Role, find_dialect
from deburr.passes.quantize.emitted_copy import EmittedCopy
from deburr.passes.quantize.placement import is_quantized, place
from deburr.passes.quantize.weighted import bias_of, output_channels

BATCH = 16
Floats = npt.NDArray[np.float64]


class Mean(NamedTuple):
    """Of some samples of one size: as the model computes it and as its integers stand for it, both [1, …]."""

    samples: int
    before: Floats
    after: Floats

    def plus(self, other: Mean) -> Mean:
        return Mean(self.samples + other.samples, self.before + other.before, self.after + other.after)


@dataclass(frozen=True)
class CorrectBias(Pass):
    """Fold the mean error of each layer's rounded weights and data, over the calibration data, into its bias.

    A layer is linear, so its mean output is its output for the mean input: one mean sample before and one after rounding are
    all that is kept, and padding is accounted for.

    :param mode: fast takes what earlier layers give to be right, and looks at all samples in one go. sequential measures each
        layer behind the quantized and corrected layers before it, so that errors of activation functions and of layers without
        a bias are made up for too. It mends means alone: where rounding shrinks what layers give, as 4 bits to the nearest do,
        a bias in place of a gain makes the shrinking worse from layer to layer, and fast or round-weights is what to use.
    :param samples: that sequential looks at; what lies between two layers is held in memory for all of them.
    """

    name: ClassVar[str] = "correct-bias"
    main_graph_only: ClassVar[bool] = True
    needs_data: ClassVar[bool] = True
    tolerance: ClassVar[float | None] = None

    dialect: str = "ort"
    mode: Literal["fast", "sequential"] = "fast"
    samples: int = 64

    def run(self, graph: Graph, context: Context) -> None:
        """:raises DeburrError: E203 for an unknown dialect or samples below 1, and what `linear.activations` raises."""
        dialect = find_dialect(self.dialect)
        if self.samples < 1:
            raise DeburrError("E203", "samples is out of range", where=f"pass {self}", hint="it is at least 1")
        if is_quantized(graph):
            context.remark(graph.name, "the model is quantized already")
            return
        roles = place(graph, dialect).nodes
        nodes = [node for node, role in roles.items() if role is Role.WEIGHTED and _can_correct(node)]
        copy = EmittedCopy.of(_with_biases(nodes, context.model), self.dialect) if self.mode == "sequential" and nodes else None
        if copy is not None:
            self._one_after_the_other(nodes, copy, context)
            return
        if self.mode == "sequential" and nodes:
            context.remark(graph.name, "it holds subgraphs: biases are corrected all at once")
        means = _mean_samples(list(dict.fromkeys(node.input(0) for node in nodes)), context)
        for node in nodes:
            _shift_bias(graph, node, _mean_error(node, context.model, means[node.input(0)]))

    def _one_after_the_other(self, nodes: list[Node], copy: EmittedCopy, context: Context) -> None:
        assert context.data is not None
        data = context.data.take(self.samples)
        means = _mean_samples(
            list(dict.fromkeys(node.input(0) for node in nodes)), dataclasses.replace(context, data=data, _analyses={})
        )
        sweep = Sweep(copy.model, data, BATCH)
        for node in context.progress(nodes, len(nodes), "correcting biases"):
            quantized = _means_by_size(batch for (batch,) in sweep.values([copy.nodes[node].input(0)]))
            measured = [mean._replace(after=quantized[mean.before.shape[1:]]) for mean in means[node.input(0)]]
            bias = _shift_bias(node.owner, node, _mean_error(node, context.model, measured))
            copy.set_bias(node, bias)


def _can_correct(node: Node) -> bool:
    """Noted for rounding, and with a place for a bias. The first axis must be the samples'."""
    is_noted = node.input(0).qparams is not None and node.input(1).qparams is not None
    return is_noted and node.op != "MatMul" and not node.get("transA", 0)


def _with_biases(nodes: list[Node], model: Model) -> Model:
    """The model, in which layers that have no bias were given one of zeros."""
    for node in nodes:
        if bias_of(node) is None:
            node.set_input(2, model.graph.add_constant(np.zeros(output_channels(node), np.float32), "b"))
    return model


def _means_by_size(batches: Iterable[Array]) -> dict[tuple[int, ...], Floats]:
    """The mean sample [1, …], for each size."""
    sums: dict[tuple[int, ...], tuple[int, Floats]] = {}
    for batch in batches:
        count, total = sums.get(batch.shape[1:], (0, np.zeros((1, *batch.shape[1:]))))
        sums[batch.shape[1:]] = count + len(batch), total + batch.sum(0, np.float64)
    return {size: total / count for size, (count, total) in sums.items()}


def _mean_samples(values: list[Value], context: Context) -> dict[Value, list[Mean]]:
    """The mean over all samples, for each size that they have."""
    sums: dict[tuple[Value, tuple[int, ...]], Mean] = {}
    for batch in activations(values, context, "correcting biases") if values else ():
        for value in values:
            assert value.qparams is not None
            x = np.asarray(batch.pop(value), np.float32)
            part = Mean(len(x), x.sum(0, np.float64)[None], round_trip(x, value.qparams).sum(0, np.float64)[None])
            key = value, x.shape[1:]
            sums[key] = sums[key].plus(part) if key in sums else part
    means: dict[Value, list[Mean]] = {}
    for (value, _), total in sums.items():
        means.setdefault(value, []).append(Mean(total.samples, total.before / total.samples, total.after / total.samples))
    return means


def _mean_error(node: Node, model: Model, means: list[Mean]) -> Floats:
    """What rounding adds to the mean of each output channel, shape [channels]."""
    errors = [
        _mean_output(node, model, mean.after, rounded=True) - _mean_output(node, model, mean.before, rounded=False)
        for mean in means
    ]
    average: Floats = np.average(errors, axis=0, weights=[mean.samples for mean in means])
    return average


def _mean_output(node: Node, model: Model, sample: Floats, *, rounded: bool) -> Floats:
    """What the node alone, without its bias, gives for one sample: the mean of each output channel, shape [channels]."""
    weights, qparams = np.asarray(node.input(1).array, np.float32), node.input(1).qparams
    if rounded and qparams is not None:
        weights = round_trip(weights, qparams)
    graph = Graph("layer")
    data = graph.add_value("x", TensorType(DType.FLOAT, sample.shape))
    graph.set_inputs([data])
    layer = graph.add_node(node.op, [data, graph.add_constant(weights, "w")], ["y"], node.attributes)
    graph.set_type(layer.output(), TensorType(DType.FLOAT))
    graph.set_outputs([layer.output()])
    output = Evaluator(Model(graph, {"": model.opset}, ir_version=model.ir_version)).run({"x": sample.astype(np.float32)})["y"]
    mean: Floats = output.astype(np.float64).mean(axis=tuple(axis for axis in range(output.ndim) if axis != 1))
    return mean


def _shift_bias(graph: Graph, node: Node, error: Floats) -> Floats:
    """The corrected bias, [channels]."""
    bias = bias_of(node)
    old = np.zeros(output_channels(node)) if bias is None or bias.array is None else bias.array.astype(np.float64)
    new: Floats = old - error
    corrected = graph.add_constant(new.astype(np.float32), bias.name if bias is not None else "b")
    node.set_input(2, corrected)
    if bias is not None and not bias.uses and not bias.is_output and bias.is_constant:
        name = bias.name
        graph.remove_value(bias)
        graph.rename(corrected, name)
    return new
