"""Choose the integers that stand for weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from deburr.ir.errors import DeburrError
from deburr.ir.graph import Graph
from deburr.ir.node import Node
from deburr.ir.types import DType, QParams
from deburr.ir.value import Value
from deburr.passes.core import Context, Pass
from deburr.passes.quantize.arithmetic import SMALLEST_SCALE, limits, round_trip, symmetric
from deburr.passes.quantize.dialects import Dialect, Role, find_dialect
from deburr.passes.quantize.placement import is_quantized, place
from deburr.passes.quantize.weighted import bias_of, channel_axis, output_channels

# The accumulator is 32 bits wide: half of them for the bias leave the sum of products as much.
LARGEST_BIAS = 2.0**30


@dataclass(frozen=True)
class ScaleWeights(Pass):
    """Note on every weight of a node with calibrated data how it becomes integers: symmetric, a scale for each output channel.

    A bias is to be 32 bits wide with the scale of data times weights. Where it would not fit, or a channel's weights are all
    zero, the weights' scale is raised. Weights that nodes use along different axes are cloned, and the factors of a Gemm are
    multiplied into its weights and bias.

    :param bits: 8, or 4: half the bytes again, for files of opset 21. With 4, the scale is the one that loses least in the mean
        square; rounding to the nearest then costs much accuracy, so put `round-weights` behind it.
    :param smallest: layers with fewer weights than this for each output keep 8 bits: they hold few bytes, and have hardly any
        other weight that could make up for a rounding error.
    """

    name: ClassVar[str] = "scale-weights"
    main_graph_only: ClassVar[bool] = True

    dialect: str = "ort"
    bits: Literal[8, 4] = 8
    smallest: int = 32

    def run(self, graph: Graph, context: Context) -> None:
        """:raises DeburrError: E203 for an unknown dialect, E304 for weights that are NaN or infinite."""
        dialect = find_dialect(self.dialect)
        if is_quantized(graph):
            context.remark(graph.name, "the model is quantized already")
            return
        roles = place(graph, dialect).nodes
        nodes = [node for node, role in roles.items() if role is Role.WEIGHTED and node.input(0).qparams is not None]
        for node in nodes:
            _multiply_factors(node)
            _bias_as_row(node)
        for weights, users in _users(nodes, dialect).items():
            graph.set_qparams(weights, scale_weight(weights, users, self._dtype(weights, users[0]), dialect))

    def _dtype(self, weights: Value, user: Node) -> DType:
        assert weights.constant is not None
        few = weights.constant.size < self.smallest * max(output_channels(user), 1)
        return DType.INT8 if self.bits == 8 or few else DType.INT4


def _multiply_factors(node: Node) -> None:
    """Bring a Gemm to ``A @ B + C``: integers know no alpha and beta."""
    for index, factor in ((1, "alpha"), (2, "beta")):
        value, number = node.optional_input(index), node.get(factor, 1.0)
        if node.op == "Gemm" and number != 1.0:
            if value is not None and value.array is not None:
                node.set_input(
                    index, node.owner.add_constant(np.asarray(value.array, np.float32) * np.float32(number), value.name)
                )
            node.set_attribute(factor, None)


def _bias_as_row(node: Node) -> None:
    """Give a Gemm a bias of one number for each channel, whatever broadcastable shape it had."""
    bias = bias_of(node)
    shape = (output_channels(node),)
    if bias is not None and bias.array is not None and bias.static_shape != shape:
        row = np.broadcast_to(bias.array.reshape(-1), shape)
        node.set_input(2, node.owner.add_constant(np.ascontiguousarray(row), bias.name))


def _axis(node: Node, dialect: Dialect) -> int | None:
    return None if node.op in dialect.per_tensor else channel_axis(node)


def _users(nodes: list[Node], dialect: Dialect) -> dict[Value, list[Node]]:
    """Weights and the nodes that use them, along one axis: for every further axis they are cloned."""
    clones: dict[tuple[Value, int | None], Value] = {}
    users: dict[Value, list[Node]] = {}
    for node in nodes:
        weights, axis = node.input(1), _axis(node, dialect)
        if (weights, axis) not in clones:
            is_first = all(original is not weights for original, _ in clones)
            clones[weights, axis] = weights if is_first else _clone(weights, node)
        weights = clones[weights, axis]
        node.set_input(1, weights)
        users.setdefault(weights, []).append(node)
    return users


def _clone(weights: Value, node: Node) -> Value:
    assert weights.constant is not None
    return node.owner.add_constant(weights.constant, weights.name)


def scale_weight(weights: Value, users: list[Node], dtype: DType, dialect: Dialect) -> QParams:
    """How the weights of these nodes, of the given type, become integers.

    :raises DeburrError: E304 for weights or biases that are NaN or infinite.
    """
    axis = _axis(users[0], dialect)
    array = np.asarray(weights.array, np.float32)
    if not np.isfinite(array).all():
        raise DeburrError("E304", "NaN or infinity in the weights", where=f"tensor {weights.name!r}")
    others = tuple(other for other in range(array.ndim) if other != axis)
    magnitude = np.asarray(np.abs(array).max(axis=others if axis is not None else None), np.float32)
    # A channel without weights computes nothing but its bias: any scale does that fits among the others.
    spare = magnitude.max() or np.float32(1)
    magnitude = np.where(magnitude > 0, magnitude, spare)
    if dtype.bits < 8:
        magnitude = _least_error(array, magnitude, dtype, axis)
    for node in () if dialect.float_bias else users:
        magnitude = np.maximum(magnitude, limits(dtype)[1] * smallest_scale(node, magnitude.shape))
    return symmetric(magnitude.astype(np.float32), dtype, axis)


def _least_error(
    array: npt.NDArray[np.float32], magnitude: npt.NDArray[np.float32], dtype: DType, axis: int | None
) -> npt.NDArray[np.float32]:
    """Of the magnitudes shrunken step by step, for each channel the one whose integers are nearest in the mean square."""
    others = tuple(other for other in range(array.ndim) if other != axis)
    best, least = magnitude, np.full(magnitude.shape, np.inf)
    for shrink in np.linspace(1.0, 0.4, 31):
        candidate = (magnitude * shrink).astype(np.float32)
        error = np.square(array - round_trip(array, symmetric(candidate, dtype, axis)), dtype=np.float64)
        total = np.asarray(error.sum(axis=others if axis is not None else None))
        best, least = np.where(total < least, candidate, best), np.minimum(total, least)
    return best


def smallest_scale(node: Node, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """What the bias asks of each scale of the weights: fit into the accumulator, and have a scale that float32 holds."""
    data = node.input(0).qparams
    assert data is not None
    smallest = np.full(shape, SMALLEST_SCALE / min(float(data.scale), 1.0))
    bias = bias_of(node)
    if bias is None or bias.array is None:
        return smallest
    needed = np.abs(bias.array.astype(np.float64)) / (float(data.scale) * LARGEST_BIAS)
    if not np.isfinite(needed).all():
        raise DeburrError("E304", "NaN or infinity in the bias", where=f"tensor {bias.name!r}")
    # A scale that several output channels share must do for the largest of their biases.
    largest: npt.NDArray[np.float64] = np.maximum(smallest, needed.reshape(-1, *shape).max(axis=0))
    return largest
