"""What a keep-set costs, and which keep-set meets a budget: the least important channels go first, over the whole model."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from deburr.ir.node import Node
from deburr.ir.value import Value
from deburr.passes.analysis.classes import Ids, Mask, Scores
from deburr.passes.analysis.cost import Cost, contracted_axes
from deburr.passes.analysis.groups import Channels, Slice

Counted = Literal["channels", "macs", "parameters", "bytes"]
Budget = Literal["channels", "macs", "parameters", "bytes", "latency"]


@dataclass(frozen=True)
class _Term:
    """A constant's elements and bytes, the work done with it, and the axes along which it is cut."""

    elements: int
    bytes: int
    macs: int
    slices: tuple[Slice, ...]


@dataclass(frozen=True, eq=False)
class _Product:
    """The work of a product whose constants (if any) stay: it shrinks with its output, and with the axes it sums over."""

    macs: int
    output: Ids
    summed: tuple[Ids, ...]

    def fraction(self, keep: Mask) -> float:
        return math.prod((float(keep[ids].mean()) for ids in self.summed), start=float(keep[self.output].mean()))


def _axes(analysis: Channels, node: Node) -> Iterator[Ids]:
    """The classes along each summed axis that holds some."""
    for index, axis in contracted_axes(node):
        ids = analysis.ids.get(node.input(index))
        if ids is not None and ids.shape[axis] > 1:
            yield ids.reshape(-1)  # the analysis leaves at most one axis with classes


class Ledger:
    """The cost of any keep-set, without touching the graph: constants shrink along the axes that follow classes, and the
    work of a contraction shrinks with its weight."""

    def __init__(self, analysis: Channels, cost: Cost) -> None:
        self._analysis = analysis
        cuts: dict[Value, dict[int, Slice]] = {}
        readers: dict[Value, dict[Node, None]] = {}
        for slice_ in analysis.slices:
            cuts.setdefault(slice_.constant, {}).setdefault(slice_.axis, slice_)
            if slice_.role in ("input", "output"):
                readers.setdefault(slice_.constant, {})[slice_.node] = None
        # A recurrent network reads two matrices: its work is split by their sizes.
        read: dict[Node, int] = {}
        for value, nodes in readers.items():
            for node in nodes:
                read[node] = read.get(node, 0) + (value.constant.size if value.constant is not None else 0)
        self._terms = []
        for value, by_axis in cuts.items():
            assert value.constant is not None
            size = value.constant.size
            work = sum(cost.macs.get(node, 0) * size // read[node] for node in readers.get(value, ()) if read[node])
            self._terms.append(_Term(size, value.constant.nbytes, work, tuple(by_axis.values())))
        self._other_bytes = cost.parameter_bytes - sum(term.bytes for term in self._terms)
        self._rest = cost.parameters - sum(term.elements for term in self._terms)
        self._products = [
            _Product(macs, analysis.ids[node.output()], tuple(_axes(analysis, node)))
            for node, macs in cost.macs.items()
            if node.op in ("MatMul", "Gemm", "Einsum") and node not in read and node.output() in analysis.ids
        ]
        measured = sum(term.macs for term in self._terms) + sum(product.macs for product in self._products)
        self._other_macs = cost.total_macs - measured

    def parameters(self, keep: Mask) -> float:
        return self._rest + sum(term.elements * self._fraction(term, keep) for term in self._terms)

    def bytes(self, keep: Mask) -> float:
        """What the constants take in a file: an element of a quantized weight counts 1, of a float32 weight 4."""
        return self._other_bytes + sum(term.bytes * self._fraction(term, keep) for term in self._terms)

    def macs(self, keep: Mask) -> float:
        between = sum(product.macs * product.fraction(keep) for product in self._products)
        return self._other_macs + between + sum(term.macs * self._fraction(term, keep) for term in self._terms)

    def channels(self, keep: Mask) -> float:
        return float(sum(keep[group.classes].sum() for group in self._analysis.prunable))

    def of(self, budget: Counted, keep: Mask) -> float:
        """The cost that a budget limits."""
        counts = {"channels": self.channels, "macs": self.macs, "parameters": self.parameters, "bytes": self.bytes}
        return counts[budget](keep)

    def per_channel(self, budget: Counted) -> Scores:
        """What removing one class alone would save."""
        saved = np.zeros(self._analysis.class_count)
        for term in self._terms:
            amount = {"channels": 0, "macs": term.macs, "parameters": term.elements, "bytes": term.bytes}[budget]
            for slice_ in term.slices:
                if slice_.vector is not None:
                    np.add.at(saved, slice_.vector, amount / len(slice_.vector))
        return np.ones_like(saved) if budget == "channels" else saved

    def _fraction(self, term: _Term, keep: Mask) -> float:
        left = 1.0
        for slice_ in term.slices:
            kept = keep[slice_.ids]
            mask = kept.any(axis=tuple(axis for axis in range(kept.ndim) if axis != slice_.ids_axis))
            left *= float(mask.mean())
        return left


@dataclass(frozen=True)
class Limits:
    """`ratio` of the budget's cost goes; each group keeps at least `minimum` classes (or all), and so many that the axes of its
    weights are multiples of `round_to`: heads of 64 channels need no rounding."""

    ratio: float
    budget: Budget
    round_to: int
    minimum: int


class Ordered:
    """The keep-sets that remove the lowest scores first, by how many of the `count` removable channels they may remove."""

    def __init__(self, analysis: Channels, scores: Scores, limits: Limits) -> None:
        self._analysis, self._limits = analysis, limits
        self._scores = np.where(analysis.always, np.inf, scores)
        groups = analysis.prunable
        units = np.concatenate([group.classes for group in groups]) if groups else np.zeros(0, np.int64)
        units = units[~analysis.always[units]]
        self._order = units[np.argsort(self._scores[units], kind="stable")]
        self._best = [(group, group.classes[np.argsort(-self._scores[group.classes], kind="stable")]) for group in groups]

    @property
    def count(self) -> int:
        return len(self._order)

    def keep(self, removed: int) -> Mask:
        """All but the `removed` lowest scores, with the best of each group put back until its count is allowed."""
        keep, limits = self._analysis.keep_all(), self._limits
        keep[self._order[:removed]] = False
        for group, best in self._best:
            count = int(keep[group.classes].sum())
            step = limits.round_to // math.gcd(limits.round_to, group.span)
            allowed = min(group.size, math.ceil(max(count, limits.minimum) / step) * step)
            keep[best[:allowed]] = True
            keep[best[allowed:]] = False
        return keep


def choose(analysis: Channels, ledger: Ledger, scores: Scores, limits: Limits) -> Mask:
    """The keep-set that removes as few of the lowest scores as meet the budget (or, if none does, as many as it may)."""
    assert limits.budget != "latency"
    ordered = Ordered(analysis, scores, limits)
    goal = (1 - limits.ratio) * ledger.of(limits.budget, analysis.keep_all())
    low, high = 0, ordered.count
    while low < high:
        middle = (low + high) // 2
        if ledger.of(limits.budget, ordered.keep(middle)) <= goal:
            high = middle
        else:
            low = middle + 1
    return ordered.keep(low)
