"""Layers that take an affine map of their output channels, y = slope * x + shift, into their weights and bias."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from deburr.ir.node import Node
from deburr.ir.value import Value
from deburr.passes.clean.common import bypass, give_constant, is_standard, remove_if_unused

Floats = npt.NDArray[np.float64]


def is_layer(node: Node | None) -> bool:
    """A convolution or a Gemm: affine over its output channels, which are axis 1 of what it gives."""
    return node is not None and is_standard(node, *_SCALERS)


def refusal(data: Value, reader: Node, others: tuple[Value | None, ...]) -> str:
    """Why the layer that gives `data` cannot do what `reader` does with it, or nothing.

    :param others: what else the reader reads.
    """
    producer = data.producer
    if producer is None or not is_layer(producer):
        return f"its input {data.name} does not come from a Conv, ConvTranspose or Gemm"
    if producer.owner is not reader.owner:
        return f"{producer!r} stands in another graph"
    if len(data.uses) > 1 or data.is_output:
        return f"its input {data.name} is used elsewhere as well"
    if data.qparams is not None:
        return f"its input {data.name} is to be quantized"
    for value in (*others, *producer.inputs[1:3]):
        if value is not None and value.array is None:
            return f"{value.name} is not constant"
    return ""


def output_channels(layer: Node) -> int:
    """How many channels a layer gives, whose weights are constant."""
    weight = floats(layer.input(1))
    if layer.op == "Conv":
        return int(weight.shape[0])
    if layer.op == "ConvTranspose":
        return int(weight.shape[1] * layer.get("group", 1))
    return int(weight.shape[0 if layer.get("transB", 0) else 1])


def absorb(data: Value, reader: Node, slope: Floats, shift: Floats) -> str:
    """Let the layer that gives `data` give what `reader` makes of it, which is removed; or say why that cannot be.

    :param slope: [channels].
    :param shift: [channels].
    """
    target = data.producer
    assert target is not None
    weight = target.input(1)
    dtype = weight.dtype
    assert dtype is not None
    bias = _folded_bias(target, slope, shift)
    if bias is None:
        return f"the bias of {target!r} varies over the batch"
    with np.errstate(over="ignore", invalid="ignore"):
        new_weight = _SCALERS[target.op](target, floats(weight), slope).astype(dtype.numpy)
        new_bias = bias.astype(dtype.numpy)
    if not (np.isfinite(new_weight.astype(np.float64)).all() and np.isfinite(new_bias.astype(np.float64)).all()):
        return f"the folded weights of {target!r} would not be finite in {dtype}"
    if (slope != 1).any():
        give_constant(target, 1, new_weight, weight.name)
    old_bias = target.optional_input(2)
    give_constant(target, 2, new_bias, old_bias.name if old_bias is not None else f"{weight.name}_bias")
    target.set_attribute("beta", None)  # Gemm: it stands in the folded bias
    _take_over(data, reader)
    return ""


def floats(value: Value) -> Floats:
    assert value.array is not None
    return value.array.astype(np.float64)


def _take_over(data: Value, reader: Node) -> None:
    """The layer gives what the reader gave, under the same name: `compensate` finds by name what a value was before."""
    graph, name = reader.owner, reader.output().name
    bypass(reader.output(), data)
    if remove_if_unused(reader):
        graph.rename(data, name)


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
    bias = floats(value) * float(target.get("beta", 1.0))
    if bias.ndim > 1:
        if bias.shape[0] != 1:
            return None
        bias = bias[0]
    return np.asarray(bias * slope + shift)
