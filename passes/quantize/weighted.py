"""What Conv, ConvTranspose, Gemm and MatMul have in common: data, constant weights, output channels, maybe a bias."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from deburr.ir.node import Node
from deburr.ir.types import DType
from deburr.ir.value import Value


def channel_axis(node: Node) -> int | None:
    """The axis of the weights (input 1) along which output channels lie, or None where one scale must do.

    ConvTranspose with groups has the channels of one group there: all groups share them. A MatMul by a stack of matrices gets
    one scale, because no kernel takes more.
    """
    if node.op == "Conv":
        return 0
    if node.op == "ConvTranspose":
        return 1
    if node.op == "Gemm":
        return 0 if node.get("transB", 0) else 1
    return 1 if len(node.input(1).static_shape or ()) == 2 else None


def contraction_axis(node: Node) -> int | None:
    """The axis of the weights that products are summed over: for Conv the input channels of a group. None for a ConvTranspose,
    whose groups share it."""
    if node.op == "Gemm":
        return 1 if node.get("transB", 0) else 0
    if node.op == "MatMul":
        rank = len(node.input(1).static_shape or ())
        return max(rank - 2, 0)
    return 1 if node.op == "Conv" else None


def bias_of(node: Node) -> Value | None:
    return None if node.op == "MatMul" else node.optional_input(2)


def output_channels(node: Node) -> int:
    """How many channels the node gives: the length of its bias."""
    axis = channel_axis(node)
    shape = node.input(1).static_shape or ()
    count = shape[axis] if axis is not None else shape[-1]
    return count * int(node.get("group", 1)) if node.op == "ConvTranspose" else count


def spread(per_channel: npt.NDArray[np.float32], node: Node) -> npt.NDArray[np.float32]:
    """A number for each channel of the weights' axis, [C] or [], as one for each output channel, [output_channels(node)]."""
    count = output_channels(node)
    return np.tile(per_channel, count // per_channel.size) if per_channel.ndim else np.full(count, per_channel)


def is_product(node: Node) -> bool:
    """Whether a node multiplies two float activations, and no weights."""
    return node.op == "MatMul" and all(
        value.dtype is DType.FLOAT and not value.is_constant for value in map(node.input, (0, 1))
    )


def refusal(node: Node) -> str:
    """Why a node of these operators cannot be quantized, or nothing."""
    data, weights = node.input(0), node.input(1)
    if not weights.is_constant:
        return "its weights are not constant"
    if data.is_constant:
        return "its data is constant"
    if weights.dtype is not DType.FLOAT or data.dtype is not DType.FLOAT:
        return f"its data is {data.dtype or 'of unknown type'} and its weights are {weights.dtype}, not float"
    if not weights.constant or not weights.constant.size:
        return "its weights are empty"
    return _bias_refusal(node)


def _bias_refusal(node: Node) -> str:
    bias = bias_of(node)
    if bias is None:
        return ""
    if not bias.is_constant:
        return "its bias is not constant"
    shape, count = bias.static_shape or (), output_channels(node)
    is_row = bias.constant is not None and (bias.constant.size == 1 or (shape[-1:] == (count,) and bias.constant.size == count))
    return "" if is_row else f"its bias has shape {list(shape)}, not one number for each of {count} channels"
