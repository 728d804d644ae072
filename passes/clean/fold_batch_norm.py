"""Multiply a BatchNormalization into the weights of the convolution before it.

In inference BatchNormalization is an affine map per channel, y = a * x + b with a = scale / sqrt(variance + epsilon) and
b = bias - a * mean (Ioffe and Szegedy, 2015, section 3.1), and so is a convolution or a Gemm over its output channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from deburr.ir.graph import Graph
from deburr.ir.node import Node
from deburr.ir.ops import is_pure
from deburr.passes.clean.common import is_standard
from deburr.passes.clean.layers import Floats, absorb, floats, refusal
from deburr.passes.core import Context, Pass


@dataclass(frozen=True, slots=True)
class FoldBatchNorm(Pass):
    """Multiply BatchNormalization into the weights of the Conv, ConvTranspose or Gemm before it."""

    name: ClassVar[str] = "fold-batch-norm"

    def run(self, graph: Graph, context: Context) -> None:
        for node in graph.nodes:
            if not is_standard(node, "BatchNormalization"):
                continue
            reason = _refusal(node, context) or absorb(node.input(0), node, *_affine(node))
            if reason:
                context.remark(node, reason)


def _refusal(norm: Node, context: Context) -> str:
    """Why this BatchNormalization has to stay, or nothing."""
    if not is_pure(norm, context.model):
        return "it runs in training mode"
    if norm.get("spatial", 1) == 0:
        return "it normalizes each element of its own, not each channel"
    return refusal(norm.input(0), norm, tuple(norm.inputs[1:5]))


def _affine(norm: Node) -> tuple[Floats, Floats]:
    """Slope and shift per channel."""
    scale, bias, mean, variance = (floats(norm.input(index)) for index in range(1, 5))
    with np.errstate(divide="ignore", invalid="ignore"):  # judged by the finiteness of the result
        slope = scale / np.sqrt(variance + float(norm.get("epsilon", 1e-5)))
        return slope, bias - slope * mean
