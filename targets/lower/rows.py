"""Softmax, normalizations and reductions along what lies together in memory become `Rows`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from deburr.ir.node import Node
from deburr.ir.types import DType, TensorType
from deburr.ir.value import Value
from deburr.targets.lower import dialect


def reduction(node: Node) -> Value | None:
    """ReduceMean, ReduceSum, ReduceMax and ReduceMin over the last axes; None for others, and for windows of images."""
    shape, axes = node.input(0).static_shape, _axes(node)
    kind = node.op.removeprefix("Reduce").lower()
    if shape is None or axes is None or not shape or not axes or axes != set(range(min(axes), len(shape))):
        return None
    size = math.prod(shape[min(axes) :])
    return _build(node, [node.input(0)], {"kind": kind, "rows": _rows(shape, size), "size": size}) if size else None


def _softmax(node: Node) -> Value | None:
    shape = node.input(0).static_shape
    if not shape or math.prod(shape[int(node.get("axis", -1)) % len(shape) + 1 :]) != 1 or not math.prod(shape):
        return None
    size = shape[int(node.get("axis", -1)) % len(shape)]
    return _build(node, [node.input(0)], {"kind": "softmax", "rows": _rows(shape, size), "size": size})


def _layer(node: Node) -> Value | None:
    """LayerNormalization; its other outputs are for training."""
    shape = node.input(0).static_shape
    if not shape or any(value is not None and (value.uses or value.is_output) for value in node.outputs[1:]):
        return None
    size = math.prod(shape[int(node.get("axis", -1)) % len(shape) :])
    return _normalized(node, size, size, 1, 1e-5)


def _instance(node: Node) -> Value | None:
    shape = node.input(0).static_shape
    if shape is None or len(shape) < 3:
        return None
    size = math.prod(shape[2:])
    return _normalized(node, size, shape[1], size, 1e-5)


def _group(node: Node) -> Value | None:
    """GroupNormalization with a factor for each channel (opset 21; until then each group had one)."""
    shape, groups = node.input(0).static_shape, int(node.get("num_groups", 1))
    if shape is None or len(shape) < 3 or node.input(1).static_shape != (shape[1],) or int(node.get("stash_type", 1)) != 1:
        return None
    return _normalized(node, math.prod(shape[1:]) // groups, shape[1], math.prod(shape[2:]), 1e-5)


def _normalized(node: Node, size: int, channels: int, inner: int, epsilon: float) -> Value | None:
    shape, bias = node.input(0).static_shape, node.optional_input(2)
    if not size or bias is None:
        bias = dialect.constant(node.owner, np.zeros(channels, np.float32), f"{node.output().name}.bias") if size else None
    factors = (node.input(1), bias)
    if shape is None or any(value is None or math.prod(value.static_shape or (0,)) != channels for value in factors):
        return None
    attributes = {
        "kind": "normalize", "rows": _rows(shape, size), "size": size, "channels": channels, "inner": inner,
        "epsilon": float(node.get("epsilon", epsilon)),
    }  # fmt: skip
    return _build(node, [node.input(0), node.input(1), bias], attributes)


def _rows(shape: tuple[int, ...], size: int) -> int:
    return math.prod(shape) // size


def _build(node: Node, operands: list[Value | None], attributes: dict[str, Any]) -> Value:
    return dialect.build("Rows", operands, TensorType(DType.FLOAT, node.output().shape), attributes, like=node)


def _axes(node: Node) -> set[int] | None:
    """The axes that are reduced, from an attribute or a constant input; all where neither is there; None if unknown."""
    rank, given = len(node.input(0).shape or ()), node.optional_input(1)
    if given is not None and given.array is None:
        return None
    axes = node.get("axes", ()) if given is None or given.array is None else given.array.reshape(-1).tolist()
    if not axes:
        return None if node.get("noop_with_empty_axes", 0) else set(range(rank))
    return {int(axis) % rank for axis in axes}


BUILDERS: Mapping[str, Callable[[Node], Value | str | None]] = {
    "Softmax": _softmax, "LayerNormalization": _layer, "InstanceNormalization": _instance, "GroupNormalization": _group,
    "ReduceSum": reduction, "ReduceMax": reduction, "ReduceMin": reduction,
}  # fmt: skip
