"""Weights that are stored as integers: the constant that a node reads through QuantizeLinear and DequantizeLinear.

Rules treat such an input as the constant itself. What they say of one of its axes holds for the integers, and for the scale
and zero point where there is one for each index of that axis. Along an axis that is cut into blocks nothing is removed: what is
left of a block would not fill it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from deburr.ir.node import Node
from deburr.ir.ops import normal_domain
from deburr.ir.types import Array, broadcastable
from deburr.ir.value import Use, Value

_SCALE, _ZERO_POINT = 1, 2


def constant_behind(value: Value | None) -> Value | None:
    """The value if it is a constant, or the constant that it is read from through Q and DQ with constant scales, else None."""
    while value is not None and not value.is_constant:
        node = value.producer
        if node is None or not is_quantizer(node) or why_not_sliced(node):
            return None
        value = node.input(0)
    return value


def is_quantizer(node: Node) -> bool:
    return node.op in ("QuantizeLinear", "DequantizeLinear") and not normal_domain(node.domain)


def why_not_sliced(node: Node) -> str:
    """Why the axes of what a Q or DQ node reads cannot be followed, or nothing."""
    operands = (node.optional_input(index) for index in (_SCALE, _ZERO_POINT))
    return "" if all(one is None or one.is_constant for one in operands) else "its scale is computed"


def in_blocks(node: Node) -> bool:
    """Whether scales of a Q or DQ node are for blocks: they then have the rank of what is quantized."""
    return bool(node.get("block_size", 0))


def per_channel(node: Node) -> tuple[int, list[int]]:
    """The axis with a scale for each index, or block of them, and which inputs of the Q or DQ node run along it."""
    shape = node.input(0).shape or ()
    operands = ((index, node.optional_input(index)) for index in (_SCALE, _ZERO_POINT))
    vectors = [index for index, one in operands if one is not None and any(dim != 1 for dim in one.shape or ())]
    return int(node.get("axis", 1)) % max(len(shape), 1), vectors


def readers(constant: Value) -> list[Use]:
    """Who reads a constant in the end: in place of a Q or DQ node, the readers of its output."""
    found: list[Use] = []
    for use in constant.uses:
        if use.index == 0 and is_quantizer(use.node) and constant_behind(use.node.output()) is not None:
            found.extend(readers(use.node.output()))
        else:
            found.append(use)
    return found


def is_given_out(constant: Value) -> bool:
    """Is the constant, or what Q and DQ nodes make of it, an output of the graph?"""
    made = [use.node.output() for use in constant.uses if use.index == 0 and is_quantizer(use.node)]
    return constant.is_output or any(is_given_out(value) for value in made)


def numbers(use: Use) -> Array | None:
    """The numbers that stand for a constant read at `use`: integers below a DequantizeLinear times their scale, in float64."""
    constant = use.node.input(use.index)
    array = constant.array
    if array is None or use.index != 0 or use.node.op != "DequantizeLinear":
        return array
    zero_point, scale = (_along(use.node, index, array.shape) for index in (_ZERO_POINT, _SCALE))
    made: Array = (array.astype(np.float64) - zero_point) * scale
    return made


def _along(node: Node, index: int, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Scale or zero point as it broadcasts against the integers."""
    operand, (axis, _) = node.optional_input(index), per_channel(node)
    if operand is None or operand.array is None:
        return np.zeros(())  # a zero point that is left out
    return broadcastable(operand.array.astype(np.float64), shape, axis, int(node.get("block_size", 0)))
