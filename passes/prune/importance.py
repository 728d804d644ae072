"""Importance criteria: how much a channel matters, one number for each class (higher: keep). Found by name in the registry.

A criterion is a function of (analysis, context). It adds up over every weight that goes when the class goes, so that coupled
channels are judged together.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from deburr.passes.analysis.classes import Scores
from deburr.passes.analysis.groups import Channels
from deburr.passes.core import Context

_BLOCK = 512

Criterion = Callable[[Channels, Context], Scores]


def l2(analysis: Channels, context: Context) -> Scores:
    """L2 norm of all weights of a class, relative to the mean of its group (as layers differ in scale, Fang et al. 2023)."""
    return relative(analysis, np.sqrt(_sum_weights(analysis, np.square)))


def l1(analysis: Channels, context: Context) -> Scores:
    """L1 norm of all weights of a class (Li et al. 2017), relative to the mean of its group."""
    return relative(analysis, _sum_weights(analysis, np.abs))


def batch_norm(analysis: Channels, context: Context) -> Scores:
    """|scale| of the BatchNormalization that a channel goes through (Liu et al. 2017), relative to the mean of its group.

    A group without one (also where `fold-batch-norm` ran before) gets its l2 scores, with a remark.
    """
    total, count = np.zeros(analysis.class_count), np.zeros(analysis.class_count)
    for slice_ in analysis.slices:
        vector, array = slice_.vector, slice_.array
        if slice_.role == "scale" and slice_.node.op == "BatchNormalization" and vector is not None and array is not None:
            np.add.at(total, vector, np.abs(array.astype(np.float64)))
            np.add.at(count, vector, 1)
    scores = relative(analysis, total / np.maximum(count, 1))
    reason = "not all of its channels go through a BatchNormalization"
    return fall_back(analysis, context, scores, count, reason, "put prune-channels before fold-batch-norm")


def geometric_median(analysis: Channels, context: Context) -> Scores:
    """Sum of the distances to the other filters of the layer (He et al. 2019, FPGM): a filter near all others is redundant.

    Each layer counts relative to its mean, and each group to its own. A group that no layer makes gets its l2 scores, with a
    remark.
    """
    total, count = np.zeros(analysis.class_count), np.zeros(analysis.class_count)
    for slice_ in analysis.slices:
        vector, array = slice_.vector, slice_.array
        # Distances are quadratic in the number of filters: a vocabulary, which stays anyway, would take forever.
        if slice_.role != "output" or vector is None or array is None or analysis.always[vector].all():
            continue
        filters = np.moveaxis(array, slice_.axis, 0).reshape(len(vector), -1).astype(np.float64)
        distances = _distances(filters)
        mean = float(distances.mean())
        np.add.at(total, vector, distances / mean if mean > 0 else distances)
        np.add.at(count, vector, 1)
    return fall_back(analysis, context, relative(analysis, total), count, "no layer makes all of its channels")


def random(analysis: Channels, context: Context) -> Scores:
    """Uniform noise from the seed: the line that every other criterion has to beat."""
    return context.random().uniform(size=analysis.class_count)


def relative(analysis: Channels, scores: Scores) -> Scores:
    """Scores divided by the mean of their group."""
    scores = scores.copy()
    for group in analysis.groups:
        mean = float(scores[group.classes].mean())
        scores[group.classes] /= mean if mean > 0 else 1.0
    return scores


def fall_back(analysis: Channels, context: Context, scores: Scores, measured: Scores, *why: str) -> Scores:
    """`scores`, with l2 scores for each prunable group that holds a class where `measured` is 0, and a remark (reason, hint).

    They are scaled to the mean of the groups that were measured, so that neither kind goes before the other.
    """
    missing = [group for group in analysis.prunable if not measured[group.classes].all()]
    if not missing:
        return scores
    others = [group.classes for group in analysis.prunable if measured[group.classes].all()]
    scale = float(scores[np.concatenate(others)].mean()) if others else 1.0
    scores, stand_in = scores.copy(), l2(analysis, context)
    for group in missing:
        context.remark(group.name, f"ranked by l2: {why[0]}", *why[1:])
        scores[group.classes] = stand_in[group.classes] * (scale if scale > 0 else 1.0)
    return scores


def _distances(filters: Scores) -> Scores:
    """Sum of the Euclidean distances of each row [rows, elements] to the others, a block of rows at a time."""
    squares, made = np.square(filters).sum(axis=1), np.zeros(len(filters))
    for start in range(0, len(filters), _BLOCK):
        block = slice(start, start + _BLOCK)
        apart = squares[block, None] + squares - 2 * filters[block] @ filters.T
        made[block] = np.sqrt(np.maximum(apart, 0)).sum(axis=1)
    return made


def _sum_weights(analysis: Channels, measure: Callable[[Scores], Scores]) -> Scores:
    """Each weight of a contraction counts relative to its mean, so that no layer of a group drowns the others."""
    total = np.zeros(analysis.class_count)
    for slice_ in analysis.slices:
        vector, array = slice_.vector, slice_.array
        if slice_.role not in ("input", "output") or vector is None or array is None:
            continue
        others = tuple(axis for axis in range(array.ndim) if axis != slice_.axis)
        along = measure(array.astype(np.float64)).sum(axis=others)
        mean = float(along.mean())
        np.add.at(total, vector, along / mean if mean > 0 else along)
    return total
