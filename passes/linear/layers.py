"""Contractions as linear maps: the rows of inputs that one output position reads, and the weights as a matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deburr.ir.node import Node
from deburr.ir.types import Array
from deburr.ir.value import Value

Matrix = npt.NDArray[np.float64]
Rows = npt.NDArray[np.float32]
Chosen = npt.NDArray[np.int64] | slice


@dataclass(frozen=True)
class Layer:
    """A Conv, Gemm or MatMul with constant weights, seen as `groups` matrices [inputs, outputs].

    `rows(x)` and `targets(y)` have their positions in the same order.
    """

    node: Node
    groups: int

    @property
    def weight(self) -> Value:
        return self.node.input(1)

    @property
    def bias(self) -> Value | None:
        return self.node.optional_input(2) if self.node.op != "MatMul" else None

    def matrix(self) -> Matrix:
        """The weights, [groups, inputs, outputs]."""
        return self.arranged(_array(self.weight).astype(np.float64))

    def arranged(self, array: Matrix) -> Matrix:
        """An array of the weights' shape, as `matrix`."""
        if self.node.op == "Conv":
            return array.reshape(self.groups, len(array) // self.groups, -1).transpose(0, 2, 1)
        return (array.T if self.node.get("transB", 0) else array)[None]

    def weights_of(self, matrix: Matrix) -> Array:
        """The constant that stands for a matrix."""
        old = _array(self.weight)
        if self.node.op == "Conv":
            made = matrix.transpose(0, 2, 1).reshape(old.shape)
        else:
            made = matrix[0].T if self.node.get("transB", 0) else matrix[0]
        return np.ascontiguousarray(made).astype(old.dtype)

    def offset(self) -> Matrix:
        """The bias, [groups, outputs]."""
        outputs = self.matrix().shape[2]
        given = np.zeros(1) if self.bias is None else _array(self.bias).astype(np.float64)
        return np.broadcast_to(given.reshape(-1), (self.groups * outputs,)).reshape(self.groups, outputs)

    def positions(self, x: Array) -> int:
        """How many rows an input makes, as many as the output has positions."""
        if self.node.op != "Conv":
            return math.prod(x.shape[:-1])
        return len(x) * math.prod(_Window.of(self.node).positions(x.shape[2:]))

    def rows(self, x: Array, chosen: Chosen = slice(None)) -> Rows:
        """Of an input: [groups, positions, inputs], the chosen positions only."""
        made: Rows = x.astype(np.float32, copy=False)
        if self.node.op == "Conv":
            return _im2col(made, self.node, self.groups, chosen)
        return made.reshape(1, -1, made.shape[-1])[:, chosen]

    def targets(self, y: Array, chosen: Chosen = slice(None)) -> Rows:
        """Of an output: [groups, positions, outputs], the chosen positions only."""
        made: Rows = y.astype(np.float32, copy=False)
        if self.node.op == "Conv":
            flat = made.reshape(len(y), self.groups, y.shape[1] // self.groups, -1)
            return flat.transpose(1, 0, 3, 2).reshape(self.groups, -1, flat.shape[2])[:, chosen]
        return made.reshape(1, -1, made.shape[-1])[:, chosen]


def layer_of(node: Node) -> Layer | str:
    """The node as a layer, or why it cannot be seen as one."""
    if node.domain not in ("", "ai.onnx") or node.op not in ("Conv", "Gemm", "MatMul"):
        return f"{node.op} is not refitted"
    weight = node.input(1)
    if not weight.is_constant or len(weight.uses) > 1:
        return "its weight is computed or shared"
    bias = node.optional_input(2)
    if bias is not None and not bias.is_constant:
        return "its bias is computed"
    if node.op == "Gemm" and (node.get("transA", 0) or node.get("alpha", 1.0) != 1.0 or node.get("beta", 1.0) != 1.0):
        return "this form of Gemm is not refitted"
    if node.op == "Conv" and node.get("auto_pad", "NOTSET") != "NOTSET":
        return "its padding is automatic: run explicit-padding first"
    if weight.shape is None or (node.op != "Conv" and len(weight.shape) != 2):
        return "its weight is no matrix"
    return Layer(node, int(node.get("group", 1)) if node.op == "Conv" else 1)


def store(layer: Layer, weight: Matrix, bias: Matrix) -> None:
    """Give a layer other weights [groups, inputs, outputs] and another bias [groups, outputs] (MatMul has none)."""
    graph, node = layer.node.owner, layer.node
    graph.set_constant(layer.weight, layer.weights_of(weight))
    if node.op == "MatMul":
        return
    flat = bias.reshape(-1).astype(layer.weight.array.dtype)  # type: ignore[union-attr]
    old = layer.bias
    if old is not None and len(old.uses) == 1 and old.shape == flat.shape:
        graph.set_constant(old, flat)
    else:
        node.set_input(2, graph.add_constant(flat, f"{layer.weight.name}_bias"))


@dataclass(frozen=True, slots=True)
class _Window:
    """The sizes of a convolution's kernel, per spatial axis; `pads` has all beginnings, then all ends."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]

    @classmethod
    def of(cls, node: Node) -> _Window:
        kernel = _array(node.input(1)).shape[2:]
        ones = (1,) * len(kernel)
        strides, dilations = tuple(node.get("strides", ones)), tuple(node.get("dilations", ones))
        return cls(kernel, strides, dilations, tuple(node.get("pads", (0,) * 2 * len(kernel))))

    @property
    def reach(self) -> tuple[int, ...]:
        return tuple(dilation * (size - 1) + 1 for size, dilation in zip(self.kernel, self.dilations, strict=True))

    @property
    def padding(self) -> list[tuple[int, int]]:
        rank = len(self.kernel)
        return list(zip(self.pads[:rank], self.pads[rank:], strict=True))

    def positions(self, sizes: Sequence[int]) -> tuple[int, ...]:
        parts = zip(sizes, self.padding, self.reach, self.strides, strict=True)
        return tuple((size + sum(pads) - reach) // stride + 1 for size, pads, reach, stride in parts)

    def view(self, x: Rows) -> Rows:
        """[samples, channels, …] as [samples, channels, positions …, kernel …], of which only the padding is a copy."""
        padded = np.pad(x, [(0, 0), (0, 0), *self.padding])
        axes = tuple(range(2, 2 + len(self.kernel)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, self.reach, axis=axes)
        steps = (slice(None, None, step) for step in (*self.strides, *self.dilations))
        return windows[(slice(None), slice(None), *steps)]


def _im2col(x: Rows, node: Node, groups: int, chosen: Chosen) -> Rows:
    """[samples, channels, …] to [groups, positions, channels per group x kernel], in the order of the weights.

    Only the chosen windows are copied: all of them take as many times the memory of `x` as the kernel has elements.
    """
    windows = _Window.of(node).view(x)
    rank = (windows.ndim - 2) // 2
    positions, kernel = (len(x), *windows.shape[2 : 2 + rank]), windows.shape[2 + rank :]
    by_position = windows.transpose(0, *range(2, 2 + rank), 1, *range(2 + rank, 2 + 2 * rank))
    indices = np.arange(math.prod(positions))[chosen]
    picked = by_position[np.unravel_index(indices, positions)]
    width = x.shape[1] // groups * math.prod(kernel)
    return picked.reshape(len(indices), groups, width).transpose(1, 0, 2)


def _array(value: Value) -> Array:
    array = value.array
    assert array is not None
    return array
