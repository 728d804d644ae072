"""The reconstruction criterion: what losing a channel costs its consumers after they were refitted to do without it.

For a consumer with input covariance H and weights W, removing the inputs c and refitting the others optimally adds
tr(W_c' inv(inv(H)_cc) W_c) to its squared error: the cost of the optimal brain surgeon (Hassibi & Stork 1993), for a whole
block of weights (as in Kurtic et al. 2023, ZipLM). Channels are taken away greedily, the cheapest first, with inv(H) and W
updated each time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from deburr.ir.errors import DeburrError
from deburr.passes.analysis.classes import Ids, Scores
from deburr.passes.analysis.groups import Channels, Group
from deburr.passes.core import Context
from deburr.passes.prune.layers import Layer, Matrix, layer_of
from deburr.passes.prune.prefix import capture_prefix
from deburr.passes.prune.regression import Moments

_ROWS = 32768
_BATCH = 50
_DAMPING = 0.01


def reconstruction(analysis: Channels, context: Context) -> Scores:
    """Error that a channel's removal adds to the outputs of its consumers, relative to the variance of these outputs.

    :raises DeburrError: E206 without calibration data.
    """
    if context.data is None:
        raise DeburrError("E206", "the criterion reconstruction needs calibration data", hint="give --data FILE.npz")
    scores = np.zeros(analysis.class_count)
    consumers = list(_consumers(analysis))
    _measure(consumers, context)
    for group in context.progress(analysis.prunable, len(analysis.prunable), "rank channels"):
        _rank(group, [consumer for consumer in consumers if np.isin(consumer.vector, group.classes).any()], scores)
    return scores


@dataclass(eq=False)
class _Consumer:
    """A contraction and the class of each of its input channels; `inverse` [d, d] and `weight` [d, outputs] once measured."""

    layer: Layer
    vector: Ids
    moments: Moments
    inverse: Matrix
    weight: Matrix

    def finish(self) -> None:
        """From moments to the inverse of the damped covariance, and weights in units of the output's standard deviation."""
        covariance = self.moments.centered()[0][0]
        size = len(covariance)
        covariance += (_DAMPING * np.trace(covariance) / size + 1e-10) * np.eye(size)
        weight = self.layer.matrix()[0]
        energy = float((weight * (covariance @ weight)).sum())
        self.inverse = np.linalg.inv(covariance)
        self.weight = weight / np.sqrt(max(energy, 1e-30))


def _measure(consumers: list[_Consumer], context: Context) -> None:
    """One pass over the data for all consumers."""
    assert context.data is not None
    random, data = context.random(), context.data
    inputs = list(dict.fromkeys(consumer.layer.node.input(0) for consumer in consumers))
    batches = capture_prefix(context.model, inputs, data, _BATCH) if inputs else ()
    for arrays in context.progress(batches, -(-len(data) // _BATCH), "measure inputs"):
        by_value = dict(zip(inputs, arrays, strict=True))
        for consumer in consumers:
            x = by_value[consumer.layer.node.input(0)]
            rows = consumer.layer.rows(x)
            share = max(1, _ROWS * len(x) // len(data))
            chosen = np.sort(random.choice(rows.shape[1], share, replace=False)) if share < rows.shape[1] else slice(None)
            consumer.moments.add(rows[:, chosen], rows[:, chosen, :1])
    for consumer in consumers:
        consumer.finish()


def _consumers(analysis: Channels) -> Iterator[_Consumer]:
    for slice_ in analysis.slices:
        vector = slice_.vector
        layer = layer_of(slice_.use.node)
        if slice_.role == "input" and vector is not None and isinstance(layer, Layer) and layer.groups == 1:
            empty = np.zeros((0, 0))
            yield _Consumer(layer, vector, Moments(), empty, empty)


class _Blocks:
    """One consumer while the channels of one group are taken away from it: its rows in blocks [channels, block]."""

    def __init__(self, consumer: _Consumer, classes: Ids) -> None:
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


def _rank(group: Group, consumers: list[_Consumer], scores: Scores) -> None:
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
