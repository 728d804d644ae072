"""Attributes and constants that spell out a size: rewritten to what is left after the surgery."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from deburr.ir.node import Node
from deburr.ir.value import Value
from deburr.passes.analysis.classes import Mask
from deburr.passes.analysis.groups import Channels
from deburr.passes.analysis.rules_movement import slice_bounds, split_sizes
from deburr.passes.analysis.walk import integers_of

Masks = Callable[[Value], Sequence[Mask]]  # which indices of each axis are left; length 1 where an axis is left alone


def regenerate(node: Node, what: str, analysis: Channels, masks: Masks) -> None:
    """Rewrite what `node` spells out. Reads the graph as it was analysed, so it runs before any weight is sliced."""
    _REGENERATE[what](node, analysis, masks)


def _set_integers(node: Node, index: int, numbers: Sequence[int]) -> None:
    """Give the node a constant of its own (others may read the old one), of the old one's dtype and shape."""
    old = node.optional_input(index)
    dtype = np.int64 if old is None or old.array is None else old.array.dtype
    shape = (len(numbers),) if old is None or old.array is None else old.array.shape
    array = np.array(numbers, dtype)
    array = array.reshape(shape) if array.size == np.prod(shape) else array
    if old is not None and old.array is not None and np.array_equal(old.array, array):
        return
    node.set_input(index, node.owner.add_constant(array, old.name if old is not None else f"{node.name or node.op}_sizes"))
    if old is not None and old.is_constant and not old.uses and not old.is_output:
        old.graph.remove_value(old)


def _shape(node: Node, analysis: Channels, masks: Masks) -> None:
    array = node.input(1).array
    assert array is not None
    wanted = [int(size) for size in array]
    for axis, mask in enumerate(masks(node.output())):
        if mask.size > 1 and wanted[axis] != -1:
            wanted[axis] = int(mask.sum())
    _set_integers(node, 1, wanted)


def _expand(node: Node, analysis: Channels, masks: Masks) -> None:
    array = node.input(1).array
    assert array is not None
    wanted, left = [int(size) for size in array], masks(node.output())
    for axis in range(len(wanted)):
        if left[axis + len(left) - len(wanted)].size > 1:
            wanted[axis] = 1  # repeats the single index that is there: keeps an axis as it comes
    _set_integers(node, 1, wanted)


def _split(node: Node, analysis: Channels, masks: Masks) -> None:
    mask = masks(node.input(0))[int(node.get("axis", 0))]
    if mask.size == 1:
        return
    bounds = np.cumsum([0, *split_sizes(node, mask.size)])
    sizes = [int(mask[start:end].sum()) for start, end in itertools.pairwise(bounds.tolist())]
    if node.get("split") is not None:
        node.set_attribute("split", sizes)
        return
    node.set_attribute("num_outputs", None)
    _set_integers(node, 1, sizes)


def _bounds(node: Node, analysis: Channels, masks: Masks) -> None:
    new_starts, new_ends = integers_of(node, 1, "starts"), integers_of(node, 2, "ends")
    ids, left = analysis.ids[node.input(0)], masks(node.input(0))
    axes = integers_of(node, 3, "axes") if node.optional_input(3) is not None else list(range(len(new_starts)))
    order = [axis % ids.ndim for axis in axes]
    for axis, start, end in slice_bounds(node, ids):
        place = order.index(axis)
        new_starts[place], new_ends[place] = int(left[axis][:start].sum()), int(left[axis][:end].sum())
    _set_integers(node, 1, new_starts)
    _set_integers(node, 2, new_ends)


def _indices(node: Node, analysis: Channels, masks: Masks) -> None:
    axis, array = int(node.get("axis", 0)), node.input(1).array
    assert array is not None
    mask = masks(node.input(0))[axis]
    if mask.size == 1:
        return
    chosen = np.atleast_1d(array % mask.size)
    rank = np.cumsum(mask) - 1
    kept = chosen[mask[chosen]]
    kept = kept.reshape(()) if array.ndim == 0 else kept  # the single index is there: its slice would be empty otherwise
    node.set_input(1, node.owner.add_constant(rank[kept].astype(array.dtype), node.input(1).name))


def _sizes(node: Node, analysis: Channels, masks: Masks) -> None:
    array = node.input(3).array
    assert array is not None
    _set_integers(node, 3, [
        int(mask.sum()) if mask.size > 1 else int(size)
        for size, mask in zip(array, masks(node.output()), strict=True)
    ])  # fmt: skip


def _num_groups(node: Node, analysis: Channels, masks: Masks) -> None:
    """Whole statistics groups went: as many are left as channels by the size of a group."""
    mask, groups = masks(node.input(0))[1], int(node.get("num_groups"))
    if mask.size > 1:
        node.set_attribute("num_groups", int(mask.reshape(groups, -1).any(1).sum()))


def _hidden_size(node: Node, analysis: Channels, masks: Masks) -> None:
    mask = masks(next(value for value in node.outputs if value is not None))[-1]
    if mask.size > 1:
        node.set_attribute("hidden_size", int(mask.sum()))


def _group(node: Node, analysis: Channels, masks: Masks) -> None:
    mask = masks(node.input(0))[1]
    if mask.size > 1:
        node.set_attribute("group", int(mask.sum()))


_REGENERATE: Mapping[str, Callable[[Node, Channels, Masks], None]] = MappingProxyType(
    {
        "shape": _shape,
        "expand": _expand,
        "split": _split,
        "bounds": _bounds,
        "indices": _indices,
        "sizes": _sizes,
        "group": _group,
        "num_groups": _num_groups,
        "hidden_size": _hidden_size,
    }
)
