"""Sums and activations move into the epilogue of the convolution that feeds them last."""

from __future__ import annotations

import math

from deburr.ir.graph import Graph
from deburr.ir.node import Node
from deburr.ir.types import DType
from deburr.ir.value import Value
from deburr.targets.lower import dialect
from deburr.targets.lower.epilogue import Bounds, limits_of


def fuse(graph: Graph) -> None:
    """Fuse residual sums (u8 and float) into convolutions, then float activations into what stands before them.

    A convolution holds one sum, then one pair of bounds; so an activation between the two keeps the sum apart.
    """
    order = {node: index for index, node in enumerate(graph.nodes)}
    for node in list(graph.nodes):
        if node.graph is None:
            continue
        if dialect.is_op(node, "Add"):
            _fuse_add(node, order)
        elif limits_of(node) is not None:
            _fuse_activation(node)


def _fuse_add(node: Node, order: dict[Node, int]) -> None:
    candidates = [index for index in (0, 1) if _can_hold_sum(node.input(index))]
    candidates.sort(key=lambda index: order[_producer(node.input(index))], reverse=True)
    for index in candidates:
        conv, residual = _producer(node.input(index)), node.input(1 - index)
        if residual is node.input(index):
            return
        if residual.producer is None or order[residual.producer] < order[conv]:
            _absorb_sum(node, conv, residual, swapped=index == 1)
            return


def _absorb_sum(node: Node, conv: Node, residual: Value, *, swapped: bool) -> None:
    conv.set_input(4, residual)
    factors = node.get("add")
    if factors is None:
        for bound in ("low", "high"):
            conv.set_attribute(bound, node.get(bound))
    else:  # the convolution's own result comes first
        conv.set_attribute("add", (*factors[2:4], *factors[:2], *factors[4:]) if swapped else factors)
    dialect.replace(node, conv.output())


def _can_hold_sum(value: Value) -> bool:
    conv = value.producer
    if (
        conv is None
        or not dialect.is_op(conv, "Conv2d", "MatMul")
        or not dialect.single_use(value)
        or conv.optional_input(4) is not None
    ):
        return False
    if conv.get("requantize") is not None:
        return True
    if conv.input(0).dtype is DType.UINT8 and conv.op == "Conv2d":
        return False
    return conv.get("low") is None and conv.get("high") is None


def _fuse_activation(node: Node) -> None:
    """Relu or Clip behind a float convolution or sum."""
    before, limits = node.input(0).producer, limits_of(node)
    if dialect.is_op(before, "Shuffle") and before is not None and dialect.single_use(before.output()):
        before = before.input(0).producer if dialect.single_use(before.input(0)) else None
    if before is None or limits is None or not dialect.single_use(node.input(0)) or node.output().dtype is not DType.FLOAT:
        return
    if not dialect.is_op(before, "Conv2d", "MatMul", "Add") or not _ends_in_float(before):
        return
    bounds = Bounds(*limits).within(float(before.get("low", -math.inf)), float(before.get("high", math.inf)))
    before.set_attribute("low", bounds.low)
    before.set_attribute("high", bounds.high)
    dialect.replace(node, node.input(0))


def _ends_in_float(node: Node) -> bool:
    """Whether a clamp fits behind it: convolutions of integers have none for float results."""
    return node.input(0).dtype is DType.FLOAT or (node.op == "MatMul" and node.get("requantize") is None)


def _producer(value: Value) -> Node:
    assert value.producer is not None
    return value.producer
