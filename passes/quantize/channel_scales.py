"""Per-channel factors: what in front of a value can be divided by them, and what behind it multiplied, so that nothing changes.

A value whose channels are divided by s, read by layers whose weights for each input channel are multiplied by s, gives the same
outputs. Dividing can be left to the constants in front: a layer's weights and bias, the scale and shift of a normalization.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from deburr.ir.node import Node
from deburr.ir.types import Array, DType
from deburr.ir.value import Value
from deburr.passes.clean.common import is_standard
from deburr.passes.quantize.weighted import channel_axis

Floats = npt.NDArray[np.float64]

READERS = ("Conv", "Gemm", "MatMul")
# f(s x) = s f(x) for s > 0, on each channel of its own.
_HOMOGENEOUS = ("Relu", "LeakyRelu", "PRelu", "Identity")
_POOLING = ("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool")
_FIRST, _LAST = 1, -1  # where the channels of a value lie


@dataclass
class Source:
    """What gives a value its channels: `node`, the constants to divide, the Clips on the way to the value.

    Each constant is (node, input, axis of the channels, rank): a single number becomes one for each channel, of that rank. The
    divisor of a Div is multiplied. Each channel of the node is `repeats` neighbouring ones of the value, where a Flatten stands
    between.
    """

    node: Node
    constants: list[tuple[Node, int, int, int]] = field(default_factory=list)
    clips: list[Node] = field(default_factory=list)
    repeats: int = 1


def reader_refusal(node: Node, index: int) -> str:
    """Why the weights of a node cannot be multiplied along the channels of its input number `index`, or nothing."""
    if not is_standard(node, *READERS) or index != 0:
        return f"{node!r} reads it"
    weights = node.input(1)
    if weights.array is None or weights.dtype is not DType.FLOAT:
        return f"the weights of {node!r} are no float constants"
    if (node.op == "Gemm" and node.get("transA", 0)) or (node.op == "MatMul" and len(weights.static_shape or ()) != 2):
        return f"this form of {node!r} has no channels"
    return ""


def find_source(value: Value, reader: Node) -> Source | str:
    """What gives `value`, which `reader` reads, its channels, or why nothing can be divided there.

    The value's own readers are the caller's concern; every value in front of it must have one reader. A layer, a normalization
    or a factor for each channel is best, because nothing grows by the division; a factor that all channels share is taken where
    none of them stands in front of it.
    """
    source, axis = Source(reader), _LAST if reader.op == "MatMul" else _FIRST
    second_best: Source | None = None
    while True:
        node = value.producer
        if node is None:
            return second_best or f"nothing gives {value.name}"
        if node.owner is not value.graph or value.is_output or value.qparams is not None:
            return second_best or f"{value.name} is an output, or is to be quantized"
        ended = _end(node, value, axis, source)
        if ended is not None:
            return second_best or ended if isinstance(ended, str) else ended
        second_best = second_best or _common_factor(node, value, axis, source)
        if is_standard(node, "Flatten"):
            axis = _FIRST
        value = _data(node)
        if len(value.uses) > 1:
            return second_best or f"{value.name} is used elsewhere as well"


def _end(node: Node, value: Value, axis: int, source: Source) -> Source | str | None:
    """The finished source, a refusal, or None where the search goes on in front of the node."""
    if is_standard(node, *READERS):
        return _layer(node, axis, source)
    if is_standard(node, "LayerNormalization", "BatchNormalization"):
        return _normalization(node, value, axis, source)
    if is_standard(node, "Clip"):
        source.clips.append(node)
        return None
    if is_standard(node, *_HOMOGENEOUS) or (
        is_standard(node, *_POOLING) and axis == _FIRST and node.outputs[1:] in ((), (None,))
    ):
        return None
    if is_standard(node, "Flatten"):
        return _flatten(node, source)
    return _elementwise(node, value, axis, source)


def _layer(node: Node, axis: int, source: Source) -> Source | str:
    refusal = reader_refusal(node, 0)
    if refusal:
        return refusal
    if (node.op == "MatMul") != (axis == _LAST) and len(node.output().shape or ()) != 2:
        return f"the channels of {node!r} lie along another axis"
    along, bias = channel_axis(node), node.optional_input(2)
    assert along is not None
    source.constants.append((node, 1, along, node.input(1).array.ndim))  # type: ignore[union-attr]
    if bias is not None:
        if bias.array is None or bias.array.size != node.input(1).array.shape[along]:  # type: ignore[union-attr]
            return f"the bias of {node!r} is not one number for each channel"
        source.constants.append((node, 2, bias.array.ndim - 1, bias.array.ndim))
    source.node = node
    return source


def _normalization(node: Node, value: Value, axis: int, source: Source) -> Source | str:
    last = axis == _LAST or len(value.shape or ()) == 2
    is_layer = node.op == "LayerNormalization"
    if is_layer and (not last or node.get("axis", -1) not in (-1, len(value.shape or ()) - 1)):
        return f"the channels of {node!r} lie along another axis"
    if not is_layer and axis == _LAST and len(value.shape or ()) != 2:
        return f"the channels of {node!r} lie along another axis"
    for index in (1, 2):
        constant = node.optional_input(index)
        if constant is None:
            continue
        if constant.array is None or constant.array.ndim != 1:
            return f"the factors of {node!r} are not constant"
        source.constants.append((node, index, 0, 1))
    source.node = node
    return source


def _flatten(node: Node, source: Source) -> str | None:
    shape = node.input(0).shape
    if node.get("axis", 1) != 1 or shape is None or not all(isinstance(dim, int) for dim in shape[2:]):
        return f"{node!r} mixes channels, or its shape is unknown"
    source.repeats *= int(np.prod([dim for dim in shape[2:] if isinstance(dim, int)], dtype=np.int64))
    return None


def _elementwise(node: Node, value: Value, axis: int, source: Source) -> Source | str | None:
    """A constant for each channel: a factor takes the division; a summand is divided, and the search goes on."""
    index = _constant_index(node)
    if index is None:
        return f"{node!r} stands in front"
    array = node.input(index).array
    if node.op != "Add" and array is not None and array.size == 1:
        return None
    place = _place(node, index, value, axis)
    if place is None:
        return f"the constant of {node!r} is not one number for each channel"
    source.constants.append(place)
    if node.op == "Add":
        return None
    source.node = node
    return source


def _common_factor(node: Node, value: Value, axis: int, source: Source) -> Source | None:
    """What a factor that all channels share makes of the source so far, where the node is one."""
    index = _constant_index(node)
    place = None if index is None or node.op == "Add" else _place(node, index, value, axis)
    return None if place is None else Source(node, [*source.constants, place], list(source.clips), source.repeats)


def _constant_index(node: Node) -> int | None:
    """Which input of a Mul, Add or Div is a constant; not what is divided."""
    if not is_standard(node, "Mul", "Add", "Div"):
        return None
    indices = (1,) if node.op == "Div" else (0, 1)
    return next((index for index in indices if node.input(index).is_constant and not node.input(1 - index).is_constant), None)


def _place(node: Node, index: int, value: Value, axis: int) -> tuple[Node, int, int, int] | None:
    """Where the channels of `value` lie in a broadcast constant, where it has no other extent; it may be one number for all."""
    array = node.input(index).array
    if value.shape is None or array is None or not value.shape:
        return None
    rank = len(value.shape)
    trailing = rank - 1 - axis % rank
    if array.size == 1:
        return (node, index, 0, trailing + 1) if array.ndim <= rank else None
    along = array.ndim - 1 - trailing
    fits = 0 <= along < array.ndim and array.shape[along] == value.shape[axis] == array.size
    return (node, index, along, array.ndim) if fits else None


def _data(node: Node) -> Value:
    if node.op in ("Add", "Mul", "Div"):
        return next(value for value in node.inputs if value is not None and not value.is_constant)
    return node.input(0)


def divide_source(source: Source, factors: Floats) -> None:
    """Divide what the source gives by `factors` [channels of the source]."""
    for node, index, axis, rank in source.constants:
        array, shaped = _array(node.input(index)), _along(factors, axis, rank)
        array = array.reshape(()) if array.size == 1 else array
        _give(node, index, array * shaped if node.op == "Div" else array / shaped)


def multiply_reader(node: Node, factors: Floats) -> None:
    """Multiply the weights of a Conv, Gemm or MatMul by `factors` [channels of its input]."""
    array = _array(node.input(1))
    if node.op == "Conv":
        blocks = _grouped(array, node)
        shaped = factors.reshape(len(blocks), 1, -1, *[1] * (array.ndim - 2))
        _give(node, 1, (blocks * shaped).reshape(array.shape))
    else:
        _give(node, 1, array * _along(factors, _input_axis(node), 2))


def reader_ranges(node: Node) -> Floats:
    """The largest magnitude among the weights of each input channel."""
    magnitude = np.abs(_array(node.input(1)))
    if node.op == "Conv":
        blocks = _grouped(magnitude, node)
        ranges: Floats = blocks.max(axis=(1, *range(3, blocks.ndim))).reshape(-1)
        return ranges
    largest: Floats = magnitude.max(axis=1 - _input_axis(node))
    return largest


def source_ranges(node: Node) -> Floats:
    """The largest magnitude among the weights of each output channel."""
    magnitude, axis = np.abs(_array(node.input(1))), channel_axis(node)
    largest: Floats = magnitude.max(axis=tuple(other for other in range(magnitude.ndim) if other != axis))
    return largest


def _grouped(array: Floats, node: Node) -> Floats:
    """Weights of a Conv as [groups, outputs per group, inputs per group, …]."""
    groups = int(node.get("group", 1))
    return array.reshape(groups, len(array) // groups, *array.shape[1:])


def _input_axis(node: Node) -> int:
    return 1 if node.op == "Gemm" and node.get("transB", 0) else 0


def _along(factors: Floats, axis: int, rank: int) -> Floats:
    return factors.reshape([-1 if index == axis else 1 for index in range(rank)])


def _array(value: Value) -> Floats:
    assert value.array is not None
    return value.array.astype(np.float64)


def _give(node: Node, index: int, array: Floats) -> None:
    """A constant of the node's own: changed where only this node reads it, else a new one."""
    old = node.input(index)
    made: Array = array.astype(np.float32)
    if len(old.uses) == 1 and not old.is_output and old.graph is node.owner:
        old.graph.set_constant(old, made)
    else:
        node.set_input(index, node.owner.add_constant(made, old.name))
