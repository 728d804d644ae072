"""Contractions as linear maps: the rows of inputs that one output position reads, and the weights as a matrix."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deburr.ir.node import Node
from deburr.ir.types import Array
from deburr.ir.value import Value

Matrix = npt.NDArray[np.float64]
Rows = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Layer:
    """A Conv, Gemm or MatMul with constant weights, seen as `groups` matrices [inputs, outputs].

    `rows(x)` gives [groups, positions, inputs] and `targets(y)` [groups, positions, outputs], positions in the same order.
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
        array = _array(self.weight).astype(np.float64)
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

    def rows(self, x: Array) -> Rows:
        if self.node.op == "Conv":
            return _im2col(x.astype(np.float32, copy=False), self.node, self.groups)
        made: Rows = x.astype(np.float32, copy=False)
        return made.reshape(1, -1, made.shape[-1])

    def targets(self, y: Array) -> Rows:
        made: Rows = y.astype(np.float32, copy=False)
        if self.node.op == "Conv":
            flat = made.reshape(len(y), self.groups, y.shape[1] // self.groups, -1)
            return flat.transpose(1, 0, 3, 2).reshape(self.groups, -1, flat.shape[2])
        return made.reshape(1, -1, made.shape[-1])


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


def _im2col(x: Rows, node: Node, groups: int) -> Rows:
    """[samples, channels, …] to [groups, samples x positions, channels per group x kernel], in the order of the weights."""
    kernel = _array(node.input(1)).shape[2:]
    rank = len(kernel)
    strides, dilations = tuple(node.get("strides", (1,) * rank)), tuple(node.get("dilations", (1,) * rank))
    pads = tuple(node.get("pads", (0,) * 2 * rank))
    padded = np.pad(x, [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)])
    reach = tuple(dilation * (size - 1) + 1 for size, dilation in zip(kernel, dilations, strict=True))
    windows = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=tuple(range(2, 2 + rank)))
    picked = (slice(None), slice(None), *(slice(None, None, s) for s in strides), *(slice(None, None, d) for d in dilations))
    windows = windows[picked]
    samples, channels, positions = len(x), x.shape[1], windows.shape[2 : 2 + rank]
    grouped = windows.reshape(samples, groups, channels // groups, *positions, *kernel)
    order = (1, 0, *range(3, 3 + rank), 2, *range(3 + rank, 3 + 2 * rank))
    width = channels // groups * math.prod(kernel)
    return grouped.transpose(order).reshape(groups, samples * math.prod(positions), width)


def _array(value: Value) -> Array:
    array = value.array
    assert array is not None
    return array
