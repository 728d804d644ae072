"""Contractions in general, as Einsum spells them: contracted axes meet, free axes carry over, constants give fresh classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deburr.ir.node import Node
from deburr.ir.value import Value
from deburr.passes.analysis.box import unite
from deburr.passes.analysis.classes import Ids
from deburr.passes.analysis.einsum import Labels
from deburr.passes.analysis.quantized import constant_behind
from deburr.passes.analysis.walk import DeclineError, Walk, free, shape_of


@dataclass(eq=False)
class _Term:
    """An operand: `ids` over its axes, or None for a constant."""

    index: int
    value: Value
    labels: Labels
    ids: Ids | None

    def along(self, label: str) -> Ids | None:
        """The class of each index of a label, if classes vary along it (and by then along it alone)."""
        if self.ids is None or label not in self.labels or self.ids.shape[self.labels.index(label)] == 1:
            return None
        return self.ids.reshape(-1)

    def spans(self, label: str) -> bool:
        """Has it the axis, and more than the single index that is broadcast?"""
        return label in self.labels and shape_of(self.value)[self.labels.index(label)] != 1

    @property
    def carried(self) -> list[str]:
        return [] if self.ids is None else [label for label, size in zip(self.labels, self.ids.shape, strict=True) if size > 1]


def contract(node: Node, walk: Walk, labels: Sequence[Labels], out: Labels) -> Ids:
    """Rule for a node whose first inputs have axes `labels` and whose output has axes `out`; returns the output's classes.

    Where an activation holds channels on an axis that goes on (a head) and on one that is summed (a position in a head), the
    option `heads` says which of them is left to prune.

    :raises DeclineError: if an operand repeats a label, or only constants meet.
    """
    terms = []
    for index, names in enumerate(labels):
        if len(set(names)) != len(names):
            raise DeclineError("it takes a diagonal")
        value = node.input(index)
        terms.append(_Term(index, value, names, None if constant_behind(value) is not None else walk.of(value)))
    moving = [term for term in terms if term.ids is not None]
    if not moving:
        raise DeclineError("all its operands are constants")
    for term in moving:
        _choose(walk, term, [other for other in terms if other is not term], out)
    if len(moving) == 1:
        made = _with_constants(node, walk, moving[0], [term for term in terms if term.ids is None], out)
    else:
        made = _between(node, walk, terms, out)
    walk.put(node.output(), made)
    return made


def _choose(walk: Walk, term: _Term, others: list[_Term], out: Labels) -> None:
    """Leave the operand's classes on axes of one kind; between activations, on one axis."""
    for label in term.carried:
        if label not in out and not any(label in other.labels for other in others):
            _drop(walk, term, label, "it sums over the channels")
    shared = {label for other in others for label in other.labels}
    moving = any(other.ids is not None for other in others)

    def rank(label: str) -> tuple[int, int]:
        heads, summed = label in out and (label in shared or not moving), label not in out
        order = (heads, summed) if walk.options.heads == "whole" else (summed, not heads)
        return (0 if order[0] else 1 if order[1] else 2), -int(term.ids.shape[term.labels.index(label)])  # type: ignore[union-attr]

    ranked = sorted(term.carried, key=rank)
    for label in ranked[1:]:
        if moving or (label in out) != (ranked[0] in out):
            _drop(walk, term, label, "")


def _drop(walk: Walk, term: _Term, label: str, reason: str) -> None:
    assert term.ids is not None
    axis = term.labels.index(label)
    term.ids = walk.whole(term.ids, [axis], reason) if reason else unite(walk.classes, term.ids, axis)


def _with_constants(node: Node, walk: Walk, term: _Term, constants: list[_Term], out: Labels) -> Ids:
    """One activation: constants are sliced along the axes that it shares with them, and give fresh classes along their own."""
    assert term.ids is not None
    carried = term.carried
    for constant in constants:
        for axis, label in enumerate(constant.labels):
            if label in carried and constant.spans(label):
                role = "output" if label in out else "input"
                walk.slice(node, constant.index, axis, term.ids, role, ids_axis=term.labels.index(label))
    if any(label in out for label in carried):
        return _arranged(term.ids, term.labels, out)
    if len(constants) != 1:
        return free(len(out))
    constant = constants[0]
    own = [label for label in constant.labels if label in out and label not in term.labels]
    sizes = [int(shape_of(constant.value)[constant.labels.index(label)] or 1) for label in own]
    made = _arranged(walk.fresh(int(np.prod(sizes))).reshape(sizes), tuple(own), out) if own else free(len(out))
    for label in own:
        walk.slice(node, constant.index, constant.labels.index(label), made, "output", ids_axis=out.index(label))
    return made


def _between(node: Node, walk: Walk, terms: list[_Term], out: Labels) -> Ids:
    """Several activations: what meets along a label is united, and only one label of the output holds classes."""
    held = list(dict.fromkeys(label for term in terms for label in term.carried))
    order = sorted((label for label in held if label in out), key=lambda label: -sum(label in term.labels for term in terms))
    going = order[:1] if walk.options.heads == "whole" else order[-1:]
    made = free(len(out))
    for label in held:
        vectors = [vector for term in terms if (vector := term.along(label)) is not None]
        fixed = any(term.ids is not None and term.spans(label) and term.along(label) is None for term in terms)
        for vector in vectors[1:]:
            walk.classes.union(vectors[0], vector)
        if fixed or (label in out and label not in going):
            for term in terms:
                if term.along(label) is not None:
                    reason = "it meets channels that stay" if fixed else "two axes of the output would hold channels"
                    walk.freeze(term.value, reason, node)
            continue
        for term in terms:
            if term.ids is None and term.spans(label):
                role = "output" if label in out else "input"
                walk.slice(node, term.index, term.labels.index(label), vectors[0], role)
        if label in out:
            made = _arranged(vectors[0], (label,), out)
    return made


def _arranged(ids: Ids, labels: Labels, out: Labels) -> Ids:
    """Axes in the order of `out`: those it lacks are free, those that are new are free."""
    present = [label for label in out if label in labels]
    gone = tuple(axis for axis, label in enumerate(labels) if label not in out)
    left = [label for label in labels if label in out]
    ordered = ids.squeeze(gone).transpose([left.index(label) for label in present])
    return ordered.reshape([ordered.shape[present.index(label)] if label in present else 1 for label in out])
