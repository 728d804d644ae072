"""What one rounded layer costs: the noise at the model's outputs when everything else stays float."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from deburr.ir.evaluate import Evaluator, fixed_batch
from deburr.ir.model import Model
from deburr.ir.node import Node
from deburr.ir.samples import Samples
from deburr.ir.types import Array, QParams
from deburr.ir.value import Value
from deburr.passes.linear.prefix import capture_prefix, part
from deburr.passes.quantize.arithmetic import round_trip

BATCH = 8
ROUNDED = "rounded data"


class Probe:
    """A float model and its outputs for some samples. Each probe runs only what lies behind the layer that is rounded.

    `outputs[name]` holds the float outputs, joined over the samples. The main graph must not hold subgraphs.
    """

    def __init__(self, model: Model, samples: Samples) -> None:
        self.model, self.samples, self.batch = model, samples, fixed_batch(model) or BATCH
        values = list(dict.fromkeys(value for value in model.graph.outputs if value.producer is not None))
        batches = list(capture_prefix(model, values, samples, self.batch))
        self.outputs = {value.name: np.concatenate([part[i] for part in batches]) for i, value in enumerate(values)}

    def run(self, node: Node, rounded: Mapping[str, tuple[QParams | None, Array]]) -> dict[str, dict[str, Array]]:
        """The outputs behind `node` for each way of rounding it, by the key of `rounded`: parameters of its data (None: float)
        and weights. What the layer reads is computed once for all of them."""
        data, following = node.input(0), _descendants(node)
        border = _border(following)
        border = [data, *(value for value in border if value is not data)]
        evaluators = {key: Evaluator(_behind(self.model, node, following, array), optimize=True)
                      for key, (_, array) in rounded.items()}  # fmt: skip
        found: dict[str, dict[str, list[Array]]] = {key: {} for key in rounded}
        for arrays in capture_prefix(self.model, border, self.samples, self.batch):
            given = {value.name: array for value, array in zip(border, arrays, strict=True)}
            for key, (scheme, _) in rounded.items():
                x = np.asarray(given[data.name], np.float32)
                inputs = {name: array for name, array in given.items() if name in evaluators[key].inputs}
                inputs[ROUNDED] = x if scheme is None else round_trip(x, scheme)
                for name, array in evaluators[key].run(inputs).items():
                    found[key].setdefault(name, []).append(array)
        return {key: {name: np.concatenate(parts) for name, parts in one.items()} for key, one in found.items()}

    def noise(self, outputs: Mapping[str, Array]) -> float:
        """Power of the error over power of the signal, the mean over the outputs that `outputs` holds."""
        shares = []
        for name, array in outputs.items():
            exact = self.outputs[name].astype(np.float64)
            power = float(np.square(exact).sum())
            shares.append(float(np.square(array.astype(np.float64) - exact).sum()) / power if power else 0.0)
        return float(np.mean(shares)) if shares else 0.0


def decibels(noise: float) -> float:
    """The SQNR of a noise relative to the signal."""
    return float(-10 * np.log10(noise)) if noise > 0 else float("inf")


def _descendants(node: Node) -> dict[Node, None]:
    """The node and whatever its output reaches, in graph order."""
    reached = {node}
    for other in node.owner.nodes:
        if any(value is not None and value.producer in reached for value in other.inputs):
            reached.add(other)
    return {other: None for other in node.owner.nodes if other in reached}


def _border(nodes: Mapping[Node, None]) -> list[Value]:
    """The values that these nodes read and others give."""
    read = (value for node in nodes for value in node.inputs)
    return list(
        dict.fromkeys(value for value in read if value is not None and not value.is_constant and value.producer not in nodes)
    )


def _behind(model: Model, node: Node, nodes: Mapping[Node, None], weights: npt.NDArray[np.generic]) -> Model:
    """The part of the model from `node` on; it reads `ROUNDED` in place of its data, and the given weights."""
    behind = part(model, list(nodes), [value for value in dict.fromkeys(model.graph.outputs) if value.producer in nodes])
    graph, first = behind.graph, next(iter(behind.graph.nodes))
    data = graph.add_value(ROUNDED, node.input(0).type)
    first.set_input(0, data)
    first.set_input(1, graph.add_constant(weights, "rounded weights"))
    graph.set_inputs([data, *(value for value in graph.inputs if value.uses)])
    return behind
