"""Take arithmetic with a constant for each channel into the convolution before it.

Exporters write biases as an Add of their own, and networks scale and shift what a layer gives (learnable affine blocks). Folded
in, the layer's output meets its activation function, and there is one tensor to quantize where there were three.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from deburr.ir.graph import Graph
from deburr.ir.node import Node
from deburr.ir.value import Value
from deburr.passes.clean.common import is_standard
from deburr.passes.clean.layers import Floats, absorb, floats, is_layer, output_channels, refusal
from deburr.passes.core import Context, Pass

Affine = tuple[Floats, Floats]


def _divided(constant: Floats) -> Affine:
    with np.errstate(divide="ignore"):  # judged by the finiteness of the result
        return 1 / constant, np.zeros_like(constant)


# (operator, which input holds the data) -> slope and shift, of the constant. A constant divided by data is not affine.
_MAPS: Mapping[tuple[str, int], Callable[[Floats], Affine]] = {
    ("Add", 0): lambda constant: (np.ones_like(constant), constant),
    ("Add", 1): lambda constant: (np.ones_like(constant), constant),
    ("Sub", 0): lambda constant: (np.ones_like(constant), -constant),
    ("Sub", 1): lambda constant: (-np.ones_like(constant), constant),
    ("Mul", 0): lambda constant: (constant, np.zeros_like(constant)),
    ("Mul", 1): lambda constant: (constant, np.zeros_like(constant)),
    ("Div", 0): _divided,
}


@dataclass(frozen=True, slots=True)
class FoldAffine(Pass):
    """Take an Add, Sub, Mul or Div with a constant for each channel into the Conv, ConvTranspose or Gemm before it."""

    name: ClassVar[str] = "fold-affine"

    def run(self, graph: Graph, context: Context) -> None:
        for node in graph.nodes:
            index = _data_index(node)
            if index is None:
                continue
            reason = _fold(node, index)
            if reason:
                context.remark(node, reason)


def _data_index(node: Node) -> int | None:
    """Which input comes from a layer, of a node whose other input is constant; None for every other node."""
    if not is_standard(node, "Add", "Sub", "Mul", "Div") or node.input(0).is_constant == node.input(1).is_constant:
        return None
    index = 1 if node.input(0).is_constant else 0
    return index if (node.op, index) in _MAPS and is_layer(node.input(index).producer) else None


def _fold(node: Node, index: int) -> str:
    data, constant = node.input(index), node.input(1 - index)
    reason = refusal(data, node, (constant,))
    if reason:
        return reason
    per_channel = _per_channel(constant, data)
    if per_channel is None:
        return f"{constant.name} holds more than one number for each channel"
    return absorb(data, node, *_MAPS[node.op, index](per_channel))


def _per_channel(constant: Value, data: Value) -> Floats | None:
    """[channels] numbers, or None where the constant varies along another axis, or makes the tensor larger."""
    layer = data.producer
    assert layer is not None
    array, rank, channels = floats(constant), floats(layer.input(1)).ndim, output_channels(layer)
    if array.ndim > rank:
        return None
    aligned = array.reshape([1] * (rank - array.ndim) + list(array.shape))
    if aligned.size not in (1, channels) or aligned.shape[1] != aligned.size:
        return None
    return np.broadcast_to(aligned.reshape(-1), channels)
