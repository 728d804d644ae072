"""Which channels compete with which, and which are left alone by name."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Literal

import numpy as np

from deburr.ir.value import Value
from deburr.passes.analysis.classes import Scores
from deburr.passes.analysis.groups import Channels, Group
from deburr.passes.names import matching

Scope = Literal["global", "group", "isomorphic"]
Structure = frozenset[tuple[tuple[str, str, int], int]]


def compare_within(analysis: Channels, scores: Scores, scope: Scope) -> Scores:
    """Scores by which channels of the whole model can be ordered so that those of one scope lose the same share.

    "global": the scores as they are. "group": a channel's rank in its group, in 0 to 1. "isomorphic": its rank among the
    channels of all groups of the same structure (Fang et al. 2024, "Isomorphic pruning for vision models").
    """
    if scope == "global":
        return scores
    pools: dict[object, list[Group]] = {}
    structures = _structures(analysis) if scope == "isomorphic" else {}
    for group in analysis.prunable:
        pools.setdefault(structures.get(group.number, group.number), []).append(group)
    ranked = scores.copy()
    for pool in pools.values():
        classes = np.concatenate([group.classes for group in pool])
        # What is never removed counts in the size of its scope and stands behind all others.
        order = np.argsort(np.where(analysis.always[classes], np.inf, scores[classes]), kind="stable")
        ranked[classes[order]] = (np.arange(len(classes)) + 1) / len(classes)
    return ranked


def leave_alone(analysis: Channels, patterns: tuple[str, ...], where: str) -> Channels:
    """The analysis with every channel frozen that a matching node makes or is sliced by, or that a matching value holds.

    :param patterns: as `fnmatch` reads them, over the names of nodes and values; case counts.
    :raises DeburrError: E203 for a pattern that matches nothing, with the nearest names.
    """
    if not patterns:
        return analysis
    always = analysis.always.copy()
    for nodes, values in matching(analysis.graph.nodes, _values(analysis), patterns, where):
        for value in (*values, *(output for node in nodes for output in node.outputs if output is not None)):
            if value in analysis.ids:
                always[analysis.ids[value]] = True
        for slice_ in analysis.slices:
            if slice_.node in nodes or slice_.use.node in nodes or slice_.constant in values:
                always[slice_.ids] = True
    return dataclasses.replace(analysis, always=always)


def _values(analysis: Channels) -> list[Value]:
    return [value for value in dict.fromkeys((*analysis.ids, *analysis.graph.constants)) if value.name]


def _structures(analysis: Channels) -> dict[int, Structure]:
    """By number of the group: how often each (operator, role, axis) stands among the slices that follow it."""
    group_of = np.full(analysis.class_count, -1, np.int64)
    for group in analysis.groups:
        group_of[group.classes] = group.number
    found: dict[int, Counter[tuple[str, str, int]]] = {group.number: Counter() for group in analysis.groups}
    for slice_ in analysis.slices:
        for number in np.unique(group_of[slice_.ids]).tolist():
            if number >= 0:
                found[number][slice_.node.op, slice_.role, slice_.axis] += 1
    return {number: frozenset(counted.items()) for number, counted in found.items()}
