"""One topological walk that gives every tensor its class array: the state that the rules read and write."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from deburr.ir.graph import Graph
from deburr.ir.node import Node
from deburr.ir.types import Shape
from deburr.ir.value import Use, Value
from deburr.passes.analysis.box import loosen, unite, varying
from deburr.passes.analysis.classes import ALWAYS, Classes, Ids
from deburr.passes.analysis.groups import Frozen, Regenerate, Slice
from deburr.passes.analysis.quantized import constant_behind, in_blocks, is_quantizer, per_channel, why_not_sliced


class DeclineError(Exception):
    """A rule cannot follow the channels through its node; the message says why. The driver freezes them."""


Heads = Literal["whole", "inner"]
Groups = Literal["whole", "inner"]


@dataclass(frozen=True)
class ChannelOptions:
    """What the analysis may do beyond the obvious.

    `heads`: where channels are split into heads, "whole" heads go, or "inner": the same positions of every head.
    `groups`: of grouped convolutions, whole groups go, or "inner": the same positions of every group, in and out.
    `lossy`: follow the channels through normalizations over them, whose statistics then change.
    """

    heads: Heads = "whole"
    lossy: bool = False
    groups: Groups = "inner"


@dataclass(frozen=True)
class Size:
    """How long an axis of a value is at run time."""

    value: Value
    axis: int


@dataclass(frozen=True)
class Product:
    """A number, or a number times the sizes of axes."""

    factor: int
    sizes: tuple[Size, ...] = ()

    def __mul__(self, other: Product) -> Product:
        return Product(self.factor * other.factor, self.sizes + other.sizes)


class Walk:
    """Classes of the values seen so far, and what the rules found about constants and attributes.

    A class array has the rank of its value; an axis of size 1 is free: the class does not vary along it, and nothing is
    removed from it. Batch and spatial axes are free until a Reshape mixes them with channels.
    """

    def __init__(self, graph: Graph, opset: int, options: ChannelOptions | None = None) -> None:
        self.graph, self.opset, self.options = graph, opset, options or ChannelOptions()
        self.classes = Classes()
        self.ids: dict[Value, Ids] = {}
        self.slices: list[Slice] = []
        self.regenerates: list[Regenerate] = []
        self.frozen: list[Frozen] = []
        self.lossy: dict[Node, str] = {}
        self.sizes: dict[Value, tuple[Product | None, ...]] = {}  # what is known of tensors that hold sizes
        self._staged: list[Slice | Regenerate] = []
        self._understood: set[Value] = set()

    def visit(self, node: Node, rule: Callable[[Node, Walk], None] | str) -> None:
        """Apply a rule; where it declines (or there is only a reason), freeze what the node reads: its outputs are opaque."""
        self._staged, self._understood = [], set()
        try:
            if isinstance(rule, str):
                raise DeclineError(rule)
            self._need_ranks(node)
            rule(node, self)
        except DeclineError as decline:
            self._give_up(node, str(decline))
        for item in self._staged:
            (self.slices if isinstance(item, Slice) else self.regenerates).append(item)  # type: ignore[arg-type]
        for value in node.inputs:
            if value is not None and value not in self._understood:
                self.freeze_sizes(value, node)
        for value in node.outputs:
            if value is not None and value not in self.ids and value.shape is not None and constant_behind(value) is None:
                self.ids[value] = free(len(value.shape))

    def _give_up(self, node: Node, reason: str) -> None:
        self._staged, self._understood = [], set()
        for value in node.outputs:
            self.ids.pop(value, None)  # type: ignore[arg-type]
        for value in node.inputs:
            if value is not None and not value.is_constant:
                self.freeze(value, reason, node)

    def _need_ranks(self, node: Node) -> None:
        for value in (*node.inputs, *node.outputs):
            if value is not None and value.shape is None:
                raise DeclineError(f"the rank of {value.name!r} is unknown")

    # what rules ask

    def of(self, value: Value) -> Ids:
        """The class array of a value that is no constant (of another graph, or unseen: never removed)."""
        return loosen(self.classes, self.ids[value]) if value in self.ids else free(len(shape_of(value)))

    def vector(self, value: Value, axis: int, length: int) -> Ids:
        """The class of each index of `axis`; along the other axes, classes are united.

        :raises DeclineError: if `axis` has no classes but another axis has.
        """
        ids = self.of(value)
        axis %= ids.ndim
        for other in varying(ids):
            if ids.shape[axis] == 1:
                raise DeclineError(f"axis {other} of {value.name!r} holds channels too")
            if other != axis:
                ids = unite(self.classes, ids, other)
        return np.broadcast_to(ids.reshape(-1), (length,))

    def whole(self, ids: Ids, axes: Iterable[int], reason: str) -> Ids:
        """Unite along axes that an operator mixes, as long as whole slices of other axes can go.

        :raises DeclineError: with `reason`, if the classes vary along one of `axes` alone.
        """
        for axis in axes:
            if ids.shape[axis] > 1:
                if len(varying(ids)) == 1:
                    raise DeclineError(reason)
                ids = unite(self.classes, ids, axis)
        return ids

    def holds_channels(self, value: Value, axis: int) -> bool:
        return int(self.of(value).shape[axis]) > 1

    def fresh(self, count: int) -> Ids:
        return self.classes.fresh(count)

    # what rules tell

    def put(self, value: Value, ids: Ids) -> None:
        self.ids[value] = ids

    def put_axis(self, value: Value, axis: int, vector: Ids) -> Ids:
        """Give a value classes along one axis; returns the array."""
        rank = len(shape_of(value))
        ids = vector.reshape([-1 if index == axis % rank else 1 for index in range(rank)])
        self.ids[value] = ids
        return ids

    def slice(self, node: Node, index: int, axis: int, ids: Ids, role: str, *, ids_axis: int = 0) -> None:
        """Axis `axis` of the constant input number `index` follows axis `ids_axis` of `ids`; so do its scales, if quantized."""
        use = reader = Use(node, index)
        cut = False
        while (quantizer := use.node.input(use.index).producer) is not None:
            along, vectors = per_channel(quantizer)
            blocks = in_blocks(quantizer)
            cut = cut or (blocks and along == axis)
            for operand in vectors if blocks != (along == axis) else ():
                scale = Use(quantizer, operand)
                self._staged.append(Slice(scale, axis if blocks else 0, ids, ids_axis, "data", scale))
            use = Use(quantizer, 0)
        made = Slice(use, axis, ids, ids_axis, role, reader)
        self._staged.append(made)
        if cut and self.classes.find(ids).any():
            self.classes.freeze(ids)
            self.frozen.append(Frozen(made.constant, axis, "it is quantized in blocks of them", node))

    def regenerate(self, node: Node, what: str) -> None:
        self._staged.append(Regenerate(node, what))

    def understand(self, value: Value) -> None:
        """The rule follows the sizes that this input holds: they freeze nothing."""
        self._understood.add(value)

    def freeze_sizes(self, value: Value, node: Node | None = None) -> None:
        """Something reads sizes and may do anything with them: channels that they count stay."""
        for element in self.sizes.get(value, ()):
            for size in () if element is None else element.sizes:
                if self.holds_channels(size.value, size.axis):
                    self.freeze(size.value, "its size is read at run time", node)

    def freeze(self, value: Value, reason: str, node: Node | None = None) -> None:
        """Nothing is removed from this value; said once for each of its axes that holds channels."""
        ids = self.ids.get(value)
        if ids is None or not self.classes.find(ids).any():
            return
        self.classes.freeze(ids)
        carried = [axis for axis, size in enumerate(ids.shape) if size > 1] or [0]
        self.frozen.extend(Frozen(value, axis, reason, node) for axis in carried)


def free(rank: int) -> Ids:
    """A class array of which nothing is removed."""
    return np.full((1,) * rank, ALWAYS, np.int64)


def shape_of(value: Value) -> Shape:
    """The dims of a value whose rank the driver has checked."""
    assert value.shape is not None
    return value.shape


def constant_of(node: Node, index: int, what: str) -> Value:
    """Input number `index`, which must be a constant, or one that is read through DequantizeLinear.

    :raises DeclineError: if it is computed or left out.
    """
    value = node.optional_input(index)
    if value is None or constant_behind(value) is None:
        quantizer = None if value is None else value.producer
        reason = why_not_sliced(quantizer) if quantizer is not None and is_quantizer(quantizer) else ""
        raise DeclineError(f"its {what} is not a constant" + (f": {reason}" if reason else ""))
    return value


def integers_of(node: Node, index: int, what: str) -> list[int]:
    """The elements of a constant integer input."""
    array = constant_of(node, index, what).array
    assert array is not None
    return [int(element) for element in array.ravel()]
