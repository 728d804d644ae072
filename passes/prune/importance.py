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

Criterion = Callable[[Channels, Context], Scores]


def l2(analysis: Channels, context: Context) -> Scores:
    """L2 norm of all weights of a class, relative to the mean of its group (as layers differ in scale, Fang et al. 2023)."""
    return relative(analysis, np.sqrt(_sum_weights(analysis, np.square)))


def l1(analysis: Channels, context: Context) -> Scores:
    """L1 norm of all weights of a class (Li et al. 2017), relative to the mean of its group."""
    return relative(analysis, _sum_weights(analysis, np.abs))


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


def _sum_weights(analysis: Channels, measure: Callable[[Scores], Scores]) -> Scores:
    """Each weight of a contraction counts relative to its mean, so that no layer of a group drowns the others."""
    total = np.zeros(analysis.class_count)
    for slice_ in analysis.slices:
        vector, array = slice_.vector, slice_.constant.array
        if slice_.role not in ("input", "output") or vector is None or array is None:
            continue
        others = tuple(axis for axis in range(array.ndim) if axis != slice_.axis)
        along = measure(array.astype(np.float64)).sum(axis=others)
        mean = float(along.mean())
        np.add.at(total, vector, along / mean if mean > 0 else along)
    return total
