"""Rules for contractions and per-channel normalization: the contracted axes meet, the output axis gets fresh classes."""

from __future__ import annotations

import numpy as np

from deburr.ir.node import Node
from deburr.passes.analysis.classes import Ids
from deburr.passes.analysis.walk import DeclineError, Walk, constant_of


def conv(node: Node, walk: Walk) -> None:
    """Weight [O, I/group, …]."""
    weight = constant_of(node, 1, "weight")
    outputs, per_group = _sizes(weight.static_shape, 2)
    group = int(node.get("group", 1))
    shape = walk.of(node.input(0)).shape
    if shape[1] == 1 and any(size > 1 for size in shape[2:]):
        raise DeclineError("it convolves along an axis that holds channels")
    inputs = walk.vector(node.input(0), 1, per_group * group)
    if group == 1:
        made = walk.fresh(outputs)
        walk.slice(node, 1, 1, inputs, "input")
    elif per_group == 1 or walk.options.groups == "whole":
        made = np.repeat(_whole_groups(walk, inputs, group), outputs // group)
        walk.regenerate(node, "group")
    else:
        # All groups lose the same positions: balanced by construction. Different ones per group would need a gather of weights.
        rows = inputs.reshape(group, per_group)
        walk.classes.union(rows, rows[:1])
        made = np.tile(walk.fresh(outputs // group), group)
        walk.slice(node, 1, 1, rows[0], "input")
    walk.slice(node, 1, 0, made, "output")
    if node.optional_input(2) is not None:
        constant_of(node, 2, "bias")
        walk.slice(node, 2, 0, made, "bias")
    walk.put_axis(node.output(), 1, made)


def conv_transpose(node: Node, walk: Walk) -> None:
    """Weight [I, O/group, …]."""
    weight = constant_of(node, 1, "weight")
    channels, per_group = _sizes(weight.static_shape, 2)
    group = int(node.get("group", 1))
    inputs = walk.vector(node.input(0), 1, channels)
    whole = group > 1 and (channels == group or walk.options.groups == "whole")
    if group == 1:
        made = walk.fresh(per_group)
        walk.slice(node, 1, 1, made, "output")
    elif whole:
        made = np.repeat(_whole_groups(walk, inputs, group), per_group)
        walk.regenerate(node, "group")
    else:
        rows = inputs.reshape(group, -1)
        walk.classes.union(rows, rows[:1])
        fresh = walk.fresh(per_group)
        made = np.tile(fresh, group)
        walk.slice(node, 1, 1, fresh, "output")
    walk.slice(node, 1, 0, inputs, "output" if whole else "input")
    if node.optional_input(2) is not None:
        constant_of(node, 2, "bias")
        walk.slice(node, 2, 0, made, "bias")
    walk.put_axis(node.output(), 1, made)


def _whole_groups(walk: Walk, inputs: Ids, group: int) -> Ids:
    """One class for each group of input channels; its output channels go with it."""
    rows = inputs.reshape(group, -1)
    walk.classes.union(rows, rows[:, :1])
    return rows[:, 0]


def batch_normalization(node: Node, walk: Walk) -> None:
    """Inference mode: scale, bias, mean and variance along axis 1."""
    if node.get("training_mode", 0) or len(node.outputs) > 1:
        raise DeclineError("it takes its statistics from the batch")
    _normalize(node, walk, ("scale", "bias", "data", "data"))


def instance_normalization(node: Node, walk: Walk) -> None:
    """Statistics of each channel on its own: the others do not care."""
    _normalize(node, walk, ("scale", "bias"))


def _normalize(node: Node, walk: Walk, roles: tuple[str, ...]) -> None:
    length, *_ = _sizes(constant_of(node, 1, "scale").static_shape, 1)
    ids = walk.vector(node.input(0), 1, length)
    for index, role in enumerate(roles, 1):
        constant_of(node, index, role)
        walk.slice(node, index, 0, ids, role)
    walk.put(node.output(), walk.of(node.input(0)))


def _sizes(shape: tuple[int, ...] | None, rank: int) -> tuple[int, int]:
    if shape is None or len(shape) < rank:
        raise DeclineError("the rank of its weight is unusual")
    return shape[0], shape[1] if rank > 1 else 0
