"""What several clean-up passes ask about nodes and values."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from deburr.ir.attributes import AttributeReference
from deburr.ir.constants import Constant
from deburr.ir.node import Node
from deburr.ir.ops import normal_domain
from deburr.ir.types import TensorType, ValueType
from deburr.ir.value import Value


def is_standard(node: Node, *ops: str) -> bool:
    """One of these operators of the default domain, with all attributes known (inside a function they may be the caller's)."""
    return node.op in ops and not normal_domain(node.domain) and not has_references(node)


def has_references(node: Node) -> bool:
    return any(isinstance(attribute.value, AttributeReference) for attribute in node.attributes.values())


def bypass(value: Value, other: Value) -> bool:
    """Let everything read `other` in place of `value`, an equal tensor. False if `value` has to stay, as a graph output."""
    if value.is_output and other.graph is value.graph:
        value.graph.set_type(other, _merged(value.type, other.type))
    return value.replace_uses(other)


def replace_by_constant(value: Value, constant: Constant) -> None:
    """Let every node read `constant` in place of what a node computes. A graph output keeps its producer."""
    graph, name = value.graph, value.name
    if not value.uses:
        return
    if not value.is_output:
        graph.rename(value, graph.fresh_name(f"{name}_folded"))
    value_now = graph.add_constant(constant, name)
    for use in value.uses:
        use.node.set_input(use.index, value_now)


def give_constant(node: Node, index: int, array: npt.NDArray[np.generic], name: str) -> None:
    """A constant input of the node's own: changed where only this node reads it, else a new one, unless it is equal."""
    old = node.optional_input(index)
    if old is not None and old.graph is node.owner and len(old.uses) == 1 and not old.is_output:
        old.graph.set_constant(old, array)
    elif old is None or old.array is None or old.array.dtype != array.dtype or not np.array_equal(old.array, array):
        node.set_input(index, node.owner.add_constant(array, name))


def remove_if_unused(node: Node) -> bool:
    if any(value is not None and (value.uses or value.is_output) for value in node.outputs):
        return False
    node.owner.remove(node)
    return True


def _merged(first: ValueType | None, second: ValueType | None) -> ValueType | None:
    """What two descriptions of one tensor say together; the first one's word counts where both say something."""
    if not isinstance(first, TensorType) or not isinstance(second, TensorType):
        return first or second
    if first.shape is None or second.shape is None or len(first.shape) != len(second.shape):
        return first if first.shape is not None else second
    dims = zip(first.shape, second.shape, strict=True)
    return TensorType(first.dtype, tuple(two if one is None else one for one, two in dims))
