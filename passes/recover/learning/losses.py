"""What training makes small: the distance from the original's outputs, and the cross entropy of labels.

Outputs are compared by their mean squared error relative to their variance, whatever they mean. On logits that teaches more
than the divergence of softened probabilities does (Kim et al. 2021, "Comparing Kullback-Leibler divergence and mean squared
error loss in knowledge distillation").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from deburr.ir.errors import DeburrError
from deburr.ir.graph import Graph
from deburr.ir.types import Array
from deburr.ir.value import Value
from deburr.passes.recover.operators.table import Tensor


@dataclass
class Loss:
    """:param variances: of the teacher's outputs, by name: those that are held to the teacher's.
    :param labelled: the output whose classes, on axis 1, the labels number; None without labels.
    """

    variances: Mapping[str, float]
    labelled: Value | None

    def __call__(self, outputs: Mapping[str, Tensor], wanted: Mapping[str, Array], labels: Array | None) -> Tensor:
        """The loss of a batch, a scalar: the mean over its samples. `wanted` are the teacher's outputs."""
        parts: list[Any] = []
        for name, variance in self.variances.items():
            aim = torch.from_numpy(np.asarray(wanted[name], np.float32))
            parts.append(functional.mse_loss(outputs[name].float(), aim) / max(variance, 1e-12))
        if self.labelled is not None and labels is not None:
            parts.append(_cross_entropy(_log_probabilities(self.labelled, outputs[self.labelled.name].float()), labels))
        return sum(parts[1:], parts[0])


def _cross_entropy(scores: Tensor, labels: Array) -> Tensor:
    """Labels number the classes, or are shares of them as an augmentation mixed them (Zhang et al. 2018, "mixup")."""
    if labels.dtype.kind == "f":
        return -(torch.from_numpy(np.asarray(labels, np.float32)) * scores).sum(1).mean()
    return functional.nll_loss(scores, torch.from_numpy(np.asarray(labels, np.int64)))


def _log_probabilities(value: Value, scores: Tensor) -> Tensor:
    """Of classes on axis 1. A model that ends in Softmax gives probabilities already."""
    if value.producer is not None and value.producer.op == "Softmax":
        return torch.log(scores.clamp_min(1e-12))
    return torch.log_softmax(scores, 1)


def float_outputs(graph: Graph) -> list[Value]:
    return [value for value in graph.outputs if value.dtype is not None and value.dtype.is_float]


def labelled_output(graph: Graph, labels: Array, where: str) -> Value:
    """The one float output that has a score for each class, and the labels' axes otherwise.

    :raises DeburrError: E206 where there is none, or more than one.
    """
    fitting = [value for value in float_outputs(graph) if value.shape is not None and len(value.shape) == labels.ndim + 1]
    if len(fitting) != 1 or labels.dtype.kind not in "iu":
        names = ", ".join(value.name for value in fitting) or "none"
        raise DeburrError(
            "E206", "the labels fit no output", where=where,
            why=f"they are {labels.dtype} of shape {list(labels.shape)}; outputs with an axis more: {names}",
            hint="labels are integers, a class for each sample; or use loss=distill",
        )  # fmt: skip
    return fitting[0]
