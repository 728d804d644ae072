"""Importance from weights and activations together, with nothing refitted: `wanda` and `obd`.

Both look at the consumers of a channel: what their weights make of it, on calibration data. Unlike the criterion
`reconstruction` they ignore how inputs correlate, so they need the diagonal of the second moments only.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from deburr.passes.analysis.classes import Scores
from deburr.passes.analysis.groups import Channels
from deburr.passes.core import Context
from deburr.passes.linear.layers import Matrix
from deburr.passes.prune.consumers import Consumer, consumers
from deburr.passes.prune.importance import fall_back, relative

_UNMEASURED = "no consumer of it can be seen as a matrix"


def wanda(analysis: Channels, context: Context) -> Scores:
    """|W| times the L2 norm of the input it reads (Sun et al. 2023), summed over a channel's slices of its consumers.

    Each consumer counts relative to its mean, and each group to its own. A group whose consumers cannot be measured gets its
    l2 scores, with a remark.

    :raises DeburrError: E206 without calibration data.
    """
    scores, measured = _sum(analysis, context, "wanda", _salience)
    return fall_back(analysis, context, relative(analysis, scores), measured, _UNMEASURED)


def obd(analysis: Channels, context: Context) -> Scores:
    """Optimal brain damage (LeCun et al. 1990): 1/2 · E[x²] · w² over a channel's slices of its consumers.

    That is the diagonal of the second-order Taylor expansion of the squared error of a consumer's output when the channel is
    zeroed and nothing refitted, in units of that output's variance. The first-order term that Taylor criteria use (Molchanov
    et al. 2019) needs labels and a gradient; for this error it is zero, as the error is least where nothing is removed. A
    group whose consumers cannot be measured gets its l2 scores, with a remark.

    :raises DeburrError: E206 without calibration data.
    """
    scores, measured = _sum(analysis, context, "obd", _damage)
    return fall_back(analysis, context, scores, measured, _UNMEASURED)


def _sum(
    analysis: Channels, context: Context, name: str, measure: Callable[[Consumer, Matrix, Matrix], Matrix]
) -> tuple[Scores, Scores]:
    """By class: the sum of `measure(consumer, weights, second moments)` [groups, inputs], and how many slices it is made of."""
    scores, count = np.zeros(analysis.class_count), np.zeros(analysis.class_count)
    for consumer in consumers(analysis, context, name):
        moments = consumer.moments
        square = np.diagonal(moments.xx, axis1=1, axis2=2) / moments.count
        by_input = measure(consumer, consumer.layer.matrix(), square).sum(axis=0)
        np.add.at(scores, consumer.vector, by_input.reshape(len(consumer.vector), -1).sum(axis=1))
        np.add.at(count, consumer.vector, 1)
    return scores, count


def _salience(consumer: Consumer, weight: Matrix, square: Matrix) -> Matrix:
    made: Matrix = np.abs(weight).sum(axis=2) * np.sqrt(square)
    made /= max(float(made.mean()), 1e-30)
    return made


def _damage(consumer: Consumer, weight: Matrix, square: Matrix) -> Matrix:
    covariance = consumer.moments.centered()[0]
    variance = float((weight * (covariance @ weight)).sum())
    made: Matrix = 0.5 * np.square(weight).sum(axis=2) * square / max(variance, 1e-30)
    return made
