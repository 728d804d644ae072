"""How much of an error in a tensor arrives in the outputs of the nodes that read it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from deburr.ir.node import Node
from deburr.ir.value import Use, Value

Gains = npt.NDArray[np.float64]

_UNIT: Gains = np.ones(1)


def gains(value: Value) -> Gains | None:
    """For each element of a sample, what an error there adds to the squared error of its readers, summed over their outputs.

    Of a linear layer it is the sum of its squared weights for that input. Readers of other kinds hand errors on as they are.

    :return: of a shape that broadcasts against a sample (no first axis), or None where the elements do not differ.
    """
    total: Gains = np.zeros(1)
    for use in value.uses:
        part = _gain(use)
        if value.shape is None or part.ndim > len(value.shape) - 1:
            return None
        total = total + part
    return total if total.size > 1 else None


def _gain(use: Use) -> Gains:
    node = use.node
    if node.op == "Flatten" and node.get("axis", 1) == 1:
        return _flattened(node)
    weights = node.optional_input(1)
    if use.index != 0 or weights is None or weights.array is None or node.domain not in ("", "ai.onnx"):
        return _UNIT
    squared, gain = np.square(weights.array.astype(np.float64)), _UNIT
    if node.op == "Conv":
        gain = _convolution(squared, int(node.get("group", 1)))
    elif node.op == "Gemm" and not node.get("transA", 0):
        gain = squared.sum(axis=0 if node.get("transB", 0) else 1)
    elif node.op == "MatMul" and squared.ndim == 2:
        gain = squared.sum(axis=1)
    return gain


def _convolution(squared: Gains, groups: int) -> Gains:
    """[channels, 1, …]: every input channel feeds the outputs of its group."""
    per_output = squared.sum(axis=tuple(range(2, squared.ndim)))
    per_group: Gains = per_output.reshape(groups, -1, per_output.shape[1]).sum(axis=1)
    return per_group.reshape(-1, *(1,) * (squared.ndim - 2))


def _flattened(node: Node) -> Gains:
    shape, behind = node.input(0).shape or (), gains(node.output())
    sizes = [dim for dim in shape[1:] if isinstance(dim, int)]
    if behind is None or len(sizes) != len(shape) - 1 or behind.size != int(np.prod(sizes)):
        return _UNIT
    return behind.reshape(sizes)
