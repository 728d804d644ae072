"""The reconstruction criterion: what losing a channel costs its consumers after they were refitted to do without it.

For a consumer with input covariance H and weights W, removing the inputs c and refitting the others optimally adds
tr(W_c' inv(inv(H)_cc) W_c) to its squared error: the cost of the optimal brain surgeon (Hassibi & Stork 1993), for a whole
block of weights (as in Kurtic et al. 2023, ZipLM). Channels are taken away greedily, the cheapest first, with inv(H) and W
updated each time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deburr.passes.analysis.classes import Ids, Scores
from deburr.passes.analysis.groups import Channels, Group
from deburr.passes.core import Context
from deburr.passes.linear.layers import Matrix
from deburr.passes.prune.consumers import Consumer, consumers
from deburr.passes.prune.importance import fall_back

_DAMPING = 0.01


def reconstruction(analysis: Channels, context: Context) -> Scores:
    """Error that a channel's removal adds to the outputs of its consumers, relative to the variance of these outputs.

    A group whose consumers cannot be measured gets its l2 scores, with a remark.

    :raises DeburrError: E206 without calibration data.
    """
    scores, measured = np.zeros(analysis.class_count), np.zeros(analysis.class_count)
    found = [_solve(consumer) for consumer in consumers(analysis, context, "reconstruction", grouped=False)]
    for consumer in found:
        measured[consumer.vector] = 1
    for group in context.progress(analysis.prunable, len(analysis.prunable), "rank channels"):
        _rank(group, [consumer for consumer in found if np.isin(consumer.vector, group.classes).any()], scores)
    return fall_back(analysis, context, scores, measured, "no consumer of it can be refitted")


@dataclass(eq=False)
class _Solved:
    """The class of each input channel of a consumer, `inverse` [d, d] of its shrunken covariance, and `weight` [d, outputs] in
    units of the output's standard deviation."""

    vector: Ids
    inverse: Matrix
    weight: Matrix


def _solve(consumer: Consumer) -> _Solved:
    covariances = consumer.moments.centered()[0]
    covariance, size = covariances[0], len(covariances[0])
    # Behind a global pooling there may be fewer rows than inputs: any channel would seem to follow from the others.
    noise = max(float(consumer.moments.shrinkage(covariances)[0]), _DAMPING)
    covariance = (1 - noise) * covariance + (noise * np.trace(covariance) / size + 1e-10) * np.eye(size)
    weight = consumer.layer.matrix()[0]
    energy = float((weight * (covariance @ weight)).sum())
    return _Solved(consumer.vector, np.linalg.inv(covariance), weight / np.sqrt(max(energy, 1e-30)))


class _Blocks:
    """One consumer while the channels of one group are taken away from it: its rows in blocks [channels, block]."""

    def __init__(self, consumer: _Solved, classes: Ids) -> None:
        channels = len(consumer.vector)
        rows = np.arange(len(consumer.weight)).reshape(channels, -1)
        place = {int(root): index for index, root in enumerate(classes)}
        owned: list[list[int]] = [[] for _ in classes]
        for channel, root in enumerate(consumer.vector.tolist()):
            if root in place:
                owned[place[root]].extend(rows[channel].tolist())
        self.owned = [np.array(indices, np.int64) for indices in owned]
        self.inverse, self.weight = consumer.inverse.copy(), consumer.weight.copy()

    def costs(self, alive: list[int]) -> Scores:
        made = np.zeros(len(alive))
        sizes = np.array([len(self.owned[unit]) for unit in alive])
        for size in np.unique(sizes[sizes > 0]).tolist():
            at = np.flatnonzero(sizes == size)
            index = np.stack([self.owned[alive[place]] for place in at])
            block = self.inverse[index[:, :, None], index[:, None, :]]
            weight = self.weight[index]
            made[at] = np.einsum("cio,cio->c", weight, np.linalg.solve(block, weight))
        return made

    def remove(self, units: list[int]) -> None:
        gone = np.concatenate([self.owned[unit] for unit in units])
        if not gone.size:
            return
        columns = self.inverse[:, gone]
        solved = np.linalg.solve(columns[gone], np.concatenate([columns.T, self.weight[gone]], axis=1))
        width = len(self.inverse)
        self.weight -= columns @ solved[:, width:]
        self.inverse -= columns @ solved[:, :width]


def _rank(group: Group, consumers: list[_Solved], scores: Scores) -> None:
    """Greedy removal of the whole group, a 32nd of it at a time; what a channel costs when its turn comes is its score."""
    blocks = [_Blocks(consumer, group.classes) for consumer in consumers]
    alive, floor, step = list(range(group.size)), 0.0, max(1, group.size // 32)
    while alive:
        costs = np.sum([block.costs(alive) for block in blocks], axis=0) if blocks else np.zeros(len(alive))
        order = np.argsort(costs, kind="stable")[:step]
        gone = [alive[index] for index in order]
        for index in order:
            floor = max(floor, float(costs[index]))
            scores[group.classes[alive[index]]] = floor
        if len(gone) == len(alive):
            break
        for block in blocks:
            block.remove(gone)
        alive = [unit for unit in alive if unit not in set(gone)]
