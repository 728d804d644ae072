"""Multiply a BatchNormalization into the weights of the convolution before it.

In inference BatchNormalization is an affine map per channel, y = a * x + b with a = scale / sqrt(variance + epsilon) and
b = bias - a * mean (Ioffe and Szegedy, 2015, section 3.1), and so is a convolution or a Gemm over its output channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from deburr.ir.graph import Graph
from deburr.ir.node import Node
from deburr.ir.ops import is_pure
from deburr.ir.value import Value
from deburr.passes.clean.common import bypass, is_standard, remove_if_unused
from deburr.passes.core import Context, Pass

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FoldBatchNorm(Pass):
    """Multiply BatchNormalization into the weights of the Conv, ConvTranspose or Gemm before it."""

    name: ClassVar[str] = "fold-batch-norm"

    def run(self, graph: Graph, context: Context) -> None:
        for node in graph.nodes:
            if not is_standard(node, "BatchNormalization"):
                continue
            reason = _refusal(node, context) or _fold(node)
            if reason:
                context.remark(node, reason)


def _refusal(norm: Node, context: Context) -> str:
    """Why this BatchNormalization has to stay, or nothing."""
    data = norm.input(0)
    producer = data.producer
    if not is_pure(norm, context.model):
        return "it runs in training mode"
    if norm.get("spatial", 1) == 0:
        return "it normalizes each element of its own, not each channel"
    if producer is None or not is_standard(producer, *_SCALERS):
        return f"its input {data.name} does not come from a Conv, ConvTranspose or Gemm"
    if producer.owner is not norm.owner:
        return f"{producer!r} stands in another graph"
    if len(data.uses) > 1 or data.is_output:
        return f"its input {data.name} is used elsewhere as well"
    if data.qparams is not None:
        return f"its input {data.name} is to be quantized"
    for value in (*norm.inputs[1:5], *producer.inputs[1:3]):
        if value is not None and value.array is None:
            return f"{value.name} is not constant"
    return ""


def _fold(norm: Node) -> str:
    """Fold it into its producer, or say why that cannot be."""
    target = norm.input(0).producer
    assert target is not None
    slope, shift = _affine(norm)
    weight = target.input(1)
    folded = _SCALERS[target.op](target, _floats(weight), slope)
    bias = _folded_bias(target, slope, shift)
    if bias is None:
        return f"the bias of {target!r} varies over the batch"
    dtype = weight.dtype
    assert dtype is not None
    with np.errstate(over="ignore", invalid="ignore"):
        new_weight, new_bias = folded.astype(dtype.numpy), bias.astype(dtype.numpy)
    if not (np.isfinite(new_weight.astype(np.float64)).all() and np.isfinite(new_bias.astype(np.float64)).all()):
        return f"the folded weights of {target!r} would not be finite in {dtype}"
    _give(target, 1, new_weight, weight.name)
    old_bias = target.optional_input(2)
    _give(target, 2, new_bias, old_bias.name if old_bias is not None else f"{weight.name}_bias")
    target.set_attribute("beta", None)  # Gemm: it stands in the folded bias
    _take_over(target.output(), norm)
    return ""


def _take_over(scaled: Value, norm: Node) -> None:
    """The producer gives what the norm gave, under the same name: `compensate` finds by name what a value was before."""
    graph, name = norm.owner, norm.output().name
    bypass(norm.output(), scaled)
    if remove_if_unused(norm):
        graph.rename(scaled, name)


def _affine(norm: Node) -> tuple[Floats, Floats]:
    """Slope and shift per channel."""
    scale, bias, mean, variance = (_floats(norm.input(index)) for index in range(1, 5))
    with np.errstate(divide="ignore", invalid="ignore"):  # judged by the finiteness of the result
        slope = scale / np.sqrt(variance + float(norm.get("epsilon", 1e-5)))
        return slope, bias - slope * mean


def _floats(value: Value) -> Floats:
    assert value.array is not None
    return value.array.astype(np.float64)


def _scale_conv(node: Node, weight: Floats, slope: Floats) -> Floats:
    """[M, C/group, …]"""
    return weight * slope.reshape(-1, *[1] * (weight.ndim - 1))


def _scale_conv_transpose(node: Node, weight: Floats, slope: Floats) -> Floats:
    """[C, M/group, …]: output channel g * M/group + m takes the input channels of group g."""
    group = node.get("group", 1)
    grouped = weight.reshape(group, weight.shape[0] // group, *weight.shape[1:])
    scaled = grouped * slope.reshape(group, 1, -1, *[1] * (weight.ndim - 2))
    return scaled.reshape(weight.shape)


def _scale_gemm(node: Node, weight: Floats, slope: Floats) -> Floats:
    """[K, N], or [N, K] where transB is set; alpha goes on multiplying it."""
    return weight * (slope[:, None] if node.get("transB", 0) else slope)


_SCALERS = {"Conv": _scale_conv, "ConvTranspose": _scale_conv_transpose, "Gemm": _scale_gemm}


def _folded_bias(target: Node, slope: Floats, shift: Floats) -> Floats | None:
    """The bias [M], or None for a Gemm whose bias has a row per sample."""
    value = target.optional_input(2)
    if value is None:
        return shift
    bias = _floats(value) * float(target.get("beta", 1.0))
    if bias.ndim > 1:
        if bias.shape[0] != 1:
            return None
        bias = bias[0]
    return np.asarray(bias * slope + shift)


def _give(node: Node, index: int, array: npt.NDArray[np.generic], name: str) -> None:
    """A constant input of the node's own: changed where only this node reads it, else a new one."""
    old = node.optional_input(index)
    if old is not None and old.graph is node.owner and len(old.uses) == 1 and not old.is_output:
        old.graph.set_constant(old, array)
    else:
        node.set_input(index, node.owner.add_constant(array, name))
