"""The rule for Gather from a table of weights: every axis of an embedding is an axis of channels."""

from __future__ import annotations

import math

from deburr.ir.node import Node
from deburr.ir.types import DType
from deburr.passes.analysis import rules_movement
from deburr.passes.analysis.quantized import constant_behind
from deburr.passes.analysis.walk import DeclineError, Walk, shape_of

_FLOATS = (DType.FLOAT, DType.FLOAT16, DType.BFLOAT16, DType.DOUBLE)


def gather(node: Node, walk: Walk) -> None:
    """Weights [V, E, …] at computed indices along axis 0: fresh classes along E, …; else data movement."""
    table = node.input(0)
    stored = constant_behind(table)
    if stored is None or node.input(1).is_constant or table.static_shape is None or int(node.get("axis", 0)) != 0:
        rules_movement.gather(node, walk)
        return
    sizes, rank = table.static_shape[1:], len(shape_of(node.input(1)))
    if walk.of(node.input(1)).any():
        raise DeclineError("its indices hold channels")
    if not sizes or table.dtype not in _FLOATS:
        return  # numbers that are looked up may be sizes or indices
    made = walk.fresh(math.prod(sizes)).reshape((1,) * rank + sizes)
    for axis in range(len(sizes)):
        walk.slice(node, 0, axis + 1, made, "output", ids_axis=rank + axis)
    walk.put(node.output(), made)
