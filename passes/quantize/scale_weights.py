"""Choose the integers that stand for weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from deburr.ir.errors import DeburrError
from deburr.ir.graph import Graph
from deburr.ir.node import Node
from deburr.ir.types import QParams
from deburr.ir.value import Value
from deburr.passes.core import Context, Pass
from deburr.passes.quantize.arithmetic import SMALLEST_SCALE, per_scale, round_trip
from deburr.passes.quantize.dialects import Dialect, Role, find_dialect
from deburr.passes.quantize.keep import nodes_named
from deburr.passes.quantize.placement import is_quantized, place
from deburr.passes.quantize.weight_format import WeightFormat
from deburr.passes.quantize.weighted import bias_of, channel_axis, contraction_axis, output_channels

Floats = npt.NDArray[np.float32]

# The accumulator is 32 bits wide: half of them for the bias leave the sum of products as much.
LARGEST_BIAS = 2.0**30


@dataclass(frozen=True)
class ScaleWeights(Pass):
    """Note on every weight of a node with calibrated data how it becomes integers: a scale for each output channel or block.

    A bias is to be 32 bits wide with the scale of data times weights. Where it would not fit, or a channel's weights are all
    zero, the weights' scale is raised. Weights that nodes use along different axes are cloned, and the factors of a Gemm are
    multiplied into its weights and bias.

    :param bits: 8, or 4: half the bytes again, for files of opset 21. Any other number from 2 on is for study: the file holds
        such integers in the next larger of these types. Below 8, the scale is the one that loses least in the mean square;
        rounding to the nearest then costs much accuracy, so put `round-weights` behind it.
    :param scheme: symmetric: signed integers, which every back end multiplies as they are. affine: unsigned ones with a zero
        point for each scale, which lose less where the weights of a channel lie to one side; what that costs is a sum over the
        data for each output in ONNX Runtime, and integer kernels altogether in `deburr compile`, which computes such a layer in
        float.
    :param block: how many weights along the axis that is summed over share a scale (input channels of a Conv, for each place of
        its kernel), for files of opset 21: finer steps where weights differ in size, for a float32 more for each block. No
        integer kernel has such scales: the layer computes in float on what its integers stand for, its bias stays float, and
        what is won is the size of the file. Where that cannot be, as in depthwise layers, there is a remark, and a scale for
        each output channel. 0: no blocks.
    :param smallest: layers with fewer weights than this for each output keep 8 bits: they hold few bytes, and have hardly any
        other weight that could make up for a rounding error.
    :param eight_bits: layers that keep 8 bits, by their names, those of their outputs or of their weights (patterns).
    """

    name: ClassVar[str] = "scale-weights"
    main_graph_only: ClassVar[bool] = True

    dialect: str = "ort"
    bits: int = 8
    smallest: int = 32
    eight_bits: tuple[str, ...] = ()
    scheme: Literal["symmetric", "affine"] = "symmetric"
    block: int = 0

    def run(self, graph: Graph, context: Context) -> None:
        """
        :raises DeburrError: E203 for an unknown dialect, an option out of its range, a scheme that the dialect does not have or
            a pattern that matches nothing, E304 for weights that are NaN or infinite.
        """
        dialect = find_dialect(self.dialect)
        self._check(dialect)
        if is_quantized(graph):
            context.remark(graph.name, "the model is quantized already")
            return
        roles = place(graph, dialect).nodes
        nodes = [node for node, role in roles.items() if role is Role.WEIGHTED and node.input(0).qparams is not None]
        for node in nodes:
            _multiply_factors(node)
            _bias_as_row(node)
        wide = nodes_named(graph, self.eight_bits, f"pass {self}", "eight_bits")
        for weights, users in _users(nodes, dialect).items():
            form = self._form(weights, users[0])
            form = replace(form, bits=8) if any(node in wide for node in users) else form
            graph.set_qparams(weights, scale_weight(weights, users, form, dialect))
            reason = _why_no_blocks(users, form, dialect) if self.block else ""
            if reason:
                context.remark(users[0], f"its scales are not in blocks: {reason}")

    def _check(self, dialect: Dialect) -> None:
        if not 2 <= self.bits <= 8:
            raise DeburrError("E203", f"weights of {self.bits} bits", where=self.name, hint="give 2 to 8")
        if self.block < 0:
            raise DeburrError("E203", f"a block of {self.block}", where=self.name, hint="give 16 or more, or 0 for none")
        if self.scheme == "affine" and not dialect.affine_weights:
            raise DeburrError("E203", f"the dialect {dialect.name} has no affine weights", where=self.name)

    def _form(self, weights: Value, user: Node) -> WeightFormat:
        assert weights.constant is not None
        few = weights.constant.size < self.smallest * max(output_channels(user), 1)
        return WeightFormat(8 if few else self.bits, self.scheme == "affine", self.block)


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


def _why_no_blocks(users: list[Node], form: WeightFormat, dialect: Dialect) -> str:
    """Why the scales of the weights of these nodes do not come in blocks, or nothing."""
    along, shape = contraction_axis(users[0]), users[0].input(1).static_shape or ()
    if any(node.op in dialect.per_tensor for node in users):
        return f"the dialect {dialect.name} takes one scale"
    if along is None:
        return "blocks would cross the groups of a ConvTranspose"
    if shape[along] <= form.block:
        return f"a block holds all of its {shape[along]} inputs"
    if form.dtype.bits == 8 and any(node.op == "MatMul" for node in users):
        # ONNX Runtime 1.32 drops block_size where it makes a MatMulIntegerToFloat of them: it fails, or computes other numbers.
        return "ONNX Runtime mistakes blocks of 8 bits in a MatMul for channels"
    return ""


def scale_weight(weights: Value, users: list[Node], form: WeightFormat, dialect: Dialect) -> QParams:
    """How the weights of these nodes become integers of this form, or of one without blocks where there are no whole ones.

    :raises DeburrError: E304 for weights or biases that are NaN or infinite.
    """
    if form.block and _why_no_blocks(users, form, dialect):
        form = replace(form, block=0)
    axis = contraction_axis(users[0]) if form.block else _axis(users[0], dialect)
    low, high = fitted_range(weights, form, axis)
    if not (form.block or dialect.float_bias):
        scale = (high.astype(np.float64) - low) / form.steps
        widen = np.maximum.reduce([np.ones(scale.shape), *(smallest_scale(node, scale.shape) / scale for node in users)])
        low, high = (low * widen).astype(np.float32), (high * widen).astype(np.float32)
    return form.qparams(low, high, axis)


def fitted_range(weights: Value, form: WeightFormat, axis: int | None) -> tuple[Floats, Floats]:
    """What the integers of each scale cover, as `WeightFormat.qparams` takes it: all weights, or below 8 bits what loses least.

    :raises DeburrError: E304 for weights that are NaN or infinite.
    """
    array = np.asarray(weights.array, np.float32)
    if not np.isfinite(array).all():
        raise DeburrError("E304", "NaN or infinity in the weights", where=f"tensor {weights.name!r}")
    low, high = form.range_of(*(per_scale(array, pick, axis, form.block) for pick in (np.minimum, np.maximum)))
    # A channel without weights computes nothing but its bias: any scale does that fits among the others.
    spare = np.abs(array).max() or np.float32(1)
    low, high = form.range_of(low, np.where(high > low, high, spare))
    return _least_error(array, (low, high), form, axis) if form.bits < 8 else (low, high)


def _least_error(array: Floats, whole: tuple[Floats, Floats], form: WeightFormat, axis: int | None) -> tuple[Floats, Floats]:
    """Of the ranges shrunken step by step, for each scale the one whose integers are nearest in the mean square."""
    best, least = whole, np.full(whole[0].shape, np.inf)
    for shrink in np.linspace(1.0, 0.4, 31):
        low, high = ((bound * shrink).astype(np.float32) for bound in whole)
        error = np.square(array - round_trip(array, form.qparams(low, high, axis)), dtype=np.float64)
        total = per_scale(error, np.add, axis, form.block)
        best = np.where(total < least, low, best[0]), np.where(total < least, high, best[1])
        least = np.minimum(total, least)
    return best


def smallest_scale(node: Node, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """What the bias asks of each scale of the weights: fit into the accumulator, and have a scale that float32 holds.

    Where the data of the node is no integers, there is no accumulator.

    :raises DeburrError: E304 for a bias that is NaN or infinite.
    """
    data = node.input(0).qparams
    if data is None:
        return np.full(shape, SMALLEST_SCALE)
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
