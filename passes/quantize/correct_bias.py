"""Take the mean error that rounding brings into each layer out of its bias.

Nagel, van Baalen, Blankevoort, Welling: "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019,
section 4.2, with means that are measured rather than derived.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from deburr.ir.evaluate import Evaluator
from deburr.ir.graph import Graph
from deburr.ir.model import Model
from deburr.ir.node import Node
from deburr.ir.types import DType, TensorType
from deburr.ir.value import Value
from deburr.passes.core import Context, Pass
from deburr.passes.linear.activations import activations
from deburr.passes.quantize.arithmetic import round_trip
from deburr.passes.quantize.dialects import Role, find_dialect
from deburr.passes.quantize.placement import is_quantized, place
from deburr.passes.quantize.weighted import bias_of, output_channels

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
    all that is kept, and padding is accounted for. Errors of earlier layers are taken to be corrected there.
    """

    name: ClassVar[str] = "correct-bias"
    main_graph_only: ClassVar[bool] = True
    needs_data: ClassVar[bool] = True
    tolerance: ClassVar[float | None] = None

    dialect: str = "ort"

    def run(self, graph: Graph, context: Context) -> None:
        """:raises DeburrError: E203 for an unknown dialect, and what `linear.activations` raises."""
        dialect = find_dialect(self.dialect)
        if is_quantized(graph):
            context.remark(graph.name, "the model is quantized already")
            return
        roles = place(graph, dialect).nodes
        nodes = [node for node, role in roles.items() if role is Role.WEIGHTED and _can_correct(node)]
        means = _mean_samples(list(dict.fromkeys(node.input(0) for node in nodes)), context)
        for node in nodes:
            _shift_bias(graph, node, _mean_error(node, context.model, means[node.input(0)]))


def _can_correct(node: Node) -> bool:
    """Noted for rounding, and with a place for a bias. The first axis must be the samples'."""
    is_noted = node.input(0).qparams is not None and node.input(1).qparams is not None
    return is_noted and node.op != "MatMul" and not node.get("transA", 0)


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


def _shift_bias(graph: Graph, node: Node, error: Floats) -> None:
    bias = bias_of(node)
    old = np.zeros(output_channels(node)) if bias is None or bias.array is None else bias.array.astype(np.float64)
    corrected = graph.add_constant((old - error).astype(np.float32), bias.name if bias is not None else "b")
    node.set_input(2, corrected)
    if bias is not None and not bias.uses and not bias.is_output and bias.is_constant:
        name = bias.name
        graph.remove_value(bias)
        graph.rename(corrected, name)
