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
from deburr.passes.analysis.rules_movement import slice_ranges, split_sizes
from deburr.passes.analysis.sizes import spelled_out
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
    starts, ends = integers_of(node, 1, "starts"), integers_of(node, 2, "ends")
    ids, left = analysis.ids[node.input(0)], masks(node.input(0))
    axes = integers_of(node, 3, "axes") if node.optional_input(3) is not None else list(range(len(starts)))
    steps = integers_of(node, 4, "steps") if node.optional_input(4) is not None else [1] * len(starts)
    order = [axis % ids.ndim for axis in axes]
    for axis, taken in slice_ranges(node, ids):
        place, mask = order.index(axis), left[axis]
        starts[place], ends[place] = int(mask[: taken.start].sum()), int(mask[: taken.stop].sum())
        if taken.step != 1 and not mask.all():  # what is left is no longer evenly spaced
            _gather_first(node, axis, [int(mask[:index].sum()) for index in taken if mask[index]])
            starts[place], ends[place], steps[place] = 0, len(taken), 1
        elif taken.step != 1:
            starts[place], ends[place] = taken.start, taken.stop if taken.stop >= 0 else -len(mask) - 1
    _set_integers(node, 1, starts)
    _set_integers(node, 2, ends)
    if node.optional_input(4) is not None:
        _set_integers(node, 4, steps)


def _gather_first(node: Node, axis: int, indices: Sequence[int]) -> None:
    """Let `node` read only these indices of `axis`."""
    graph, data = node.owner, node.input(0)
    chosen = graph.add_constant(np.array(indices, np.int64), f"{data.name}_indices")
    name = graph.fresh_name(f"{data.name}_taken")
    node.set_input(0, graph.add_node("Gather", [data, chosen], [name], {"axis": axis}, before=node).output())


def _computed(node: Node, analysis: Channels, masks: Masks) -> None:
    """Numbers of channels among the operands of the Concat that computes a shape."""
    left = masks(node.output())
    shape = next(value for value in node.inputs[1:] if value is not None and spelled_out(value))
    places = spelled_out(shape)
    lead = len(left) - int((shape.static_shape or (len(left),))[0])
    wanted: dict[tuple[Node, int], list[int]] = {}
    for place, (concat, number, offset) in places.items():
        sizes = wanted.setdefault((concat, number), integers_of(concat, number, "sizes"))
        if left[lead + place].size > 1 and sizes[offset] != -1:
            sizes[offset] = int(left[lead + place].sum())
    for (concat, number), sizes in wanted.items():
        _set_integers(concat, number, sizes)


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
    """Whole groups of input channels went."""
    mask = masks(node.input(0))[1]
    if mask.size > 1:
        node.set_attribute("group", int(mask.reshape(int(node.get("group")), -1).any(1).sum()))


_REGENERATE: Mapping[str, Callable[[Node, Channels, Masks], None]] = MappingProxyType(
    {
        "shape": _shape,
        "computed": _computed,
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
