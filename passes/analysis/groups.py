"""What the dependency analysis found: coupled groups, frozen axes, the slices of constants, and the check of a keep-set."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from deburr.ir.graph import Graph
from deburr.ir.node import Node
from deburr.ir.types import Array
from deburr.ir.value import Use, Value
from deburr.passes.analysis.classes import Ids, Mask, Scores
from deburr.passes.analysis.quantized import numbers


@dataclass(frozen=True, eq=False)
class Slice:
    """Axis `axis` of the constant read at `use` follows axis `ids_axis` of a class array.

    `role` says what the axis is to the node: "output" and "input" of a contraction's weight, "bias", "scale" (of a
    normalization), "data" (an operand of an elementwise operator, statistics of a normalization, what quantizes a weight).
    `reader` is the input that is meant: another than `use` where the constant is read through DequantizeLinear.
    """

    use: Use
    axis: int
    ids: Ids
    ids_axis: int
    role: str
    reader: Use

    @property
    def constant(self) -> Value:
        return self.use.node.input(self.use.index)

    @property
    def vector(self) -> Ids | None:
        """The class of each index of the axis, or None where other axes take part."""
        carried = [axis for axis, size in enumerate(self.ids.shape) if size > 1]
        if carried and carried != [self.ids_axis]:
            return None
        assert self.constant.constant is not None
        return np.broadcast_to(self.ids.reshape(-1), (self.constant.constant.shape[self.axis],))

    @property
    def node(self) -> Node:
        """The operator whose weight (or bias, …) it is."""
        return self.reader.node

    @property
    def array(self) -> Array | None:
        """The numbers that the constant stands for."""
        return numbers(self.use)


@dataclass(frozen=True)
class Regenerate:
    """REGENERATE: an attribute or constant of `node` that spells out a size: "shape", "split", "group", "indices", …"""

    node: Node
    what: str


@dataclass(frozen=True)
class Frozen:
    """An axis that keeps all its channels, and why."""

    value: Value
    axis: int
    reason: str
    node: Node | None


@dataclass(frozen=True)
class Member:
    """An axis of a value that is `size` long and loses indices with its group."""

    value: Value
    axis: int
    size: int


@dataclass(frozen=True, eq=False)
class Group:
    """Channels that are coupled: `classes` are the units, each removed as a whole in all members."""

    number: int
    classes: Ids
    members: tuple[Member, ...]
    frozen: tuple[Frozen, ...]  # why some of the classes (or all) are never removed
    macs: int  # multiply-accumulates per sample of the contractions that produce or consume the group
    span: int = 1  # every weight loses a multiple of so many indices with a class: the size of a head, where heads go

    @property
    def size(self) -> int:
        return len(self.classes)

    @property
    def name(self) -> str:
        return self.members[0].value.name

    def __str__(self) -> str:
        axes = ", ".join(f"{member.value.name}:{member.axis}" for member in self.members)
        why = f" frozen: {'; '.join(dict.fromkeys(frozen.reason for frozen in self.frozen))}" if self.frozen else ""
        return f"group {self.number}: {self.size} channels, {self.macs} MACs, {axes}{why}"


@dataclass(eq=False)
class Channels:
    """The result of the dependency analysis of one graph.

    `ids[value]` holds the class (a root; 0 is never removed) of each element, as an array of the value's rank whose free
    axes have size 1. `class_count` is an upper bound of the class numbers: keep-sets are boolean arrays of that length.
    """

    graph: Graph
    class_count: int
    ids: dict[Value, Ids]
    slices: list[Slice]
    regenerates: list[Regenerate]
    groups: tuple[Group, ...]
    frozen: tuple[Frozen, ...]
    always: Mask  # which classes are frozen
    lossy: dict[Node, str] = field(default_factory=dict)  # what computes something else once its channels go, and why

    @property
    def prunable(self) -> tuple[Group, ...]:
        """The groups that can lose at least one class."""
        return tuple(group for group in self.groups if not self.always[group.classes].all())

    def keep_all(self) -> Mask:
        return np.ones(self.class_count, np.bool_)

    def masks(self, ids: Ids, keep: Mask) -> tuple[Mask, ...] | None:
        """Which indices stay along each axis, or None where what stays is no full box."""
        kept = keep[ids]
        axes = range(ids.ndim)
        along: tuple[Mask, ...] = tuple(np.asarray(kept.any(axis=tuple(o for o in axes if o != axis))) for axis in axes)
        if not all(mask.any() for mask in along):
            return None
        box: Mask = np.ones((1,) * ids.ndim, np.bool_)
        for axis, mask in enumerate(along):
            box = box & mask.reshape([-1 if other == axis else 1 for other in axes])
        return along if np.array_equal(np.broadcast_to(box, kept.shape), kept) else None

    def repair(self, keep: Mask, scores: Scores | None = None) -> tuple[Mask, tuple[Group, ...]]:
        """The nearest sound keep-set, and the groups that had to be left alone for it.

        Frozen classes are kept whatever `keep` says. A tensor that would lose everything gets back its best class (the one
        with the highest of `scores`, else the first); where a tensor would be no full box, its groups keep all they have.
        That ends, because keeping everything is sound.
        """
        keep = keep | self.always
        group_of = np.zeros(self.class_count, np.int64)
        for index, group in enumerate(self.groups):
            group_of[group.classes] = index + 1
        refused: dict[int, None] = {}
        changed = True
        while changed:
            changed = False
            for ids in self.distinct_arrays():
                if not keep[ids].any():
                    held = ids.ravel()
                    keep[held[0 if scores is None else int(np.argmax(scores[held]))]] = changed = True
                elif self.masks(ids, keep) is None:
                    for number in (number for number in np.unique(group_of[ids]).tolist() if number):
                        classes = self.groups[number - 1].classes
                        changed |= not bool(keep[classes].all())
                        refused.update({} if keep[classes].all() else {number: None})
                        keep[classes] = True
        return keep, tuple(self.groups[number - 1] for number in refused)

    def distinct_arrays(self) -> list[Ids]:
        """Every class array once: those of the values and those that constants follow."""
        arrays = [*self.ids.values(), *(slice_.ids for slice_ in self.slices)]
        return list({id(array): array for array in arrays if array.any()}.values())
