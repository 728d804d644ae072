"""The most that can be pruned at a given quality, found by bisection."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from deburr.ir.errors import DeburrError
from deburr.ir.graph import Graph
from deburr.passes.core import Context
from deburr.passes.prune.iterative import IterativePruning


@dataclass(frozen=True)
class PruneSearch(IterativePruning):
    """Find the largest ratio, up to `ratio`, that keeps the floor: by bisection, until `resolution` is reached.

    Every trial prunes the model that the pass was given, in one go, and compensates. Bisection takes it that quality only
    falls with the ratio; where noise on few samples breaks that, the result still keeps the floor, but may not be the largest.

    A random share `validate` of the samples is kept from criteria and compensation and measured on. The floor is `max_loss` of
    top-1 accuracy (0.01 is a point) where the data has labels, else `min_sqnr`, in decibel, of the worst float output against
    the model before pruning. `recover=none` leaves out compensation. The other options are those of prune-channels. Ctrl-C
    ends the pass with the largest ratio so far.
    """

    name: ClassVar[str] = "prune-search"

    ratio: float = 0.9
    max_loss: float | None = 0.01
    min_sqnr: float | None = 20.0
    resolution: float = 0.02

    def run(self, graph: Graph, context: Context) -> None:
        """:raises DeburrError: as prune-channels; E203 without a floor, E206 if it needs labels and there are none, E305 for a
        single sample."""
        self._check_search()
        trials, floor = self.trials(context, from_start=True)
        low, high, ratio, best, place = 0.0, self.ratio, self.ratio, "", f"graph {graph.name!r}"
        count = 1 + math.ceil(math.log2(max(1.0, self.ratio / self.resolution)))
        for _step in context.progress(range(count), count, lambda: trials.figures):
            trial, changed = trials.run(ratio)
            if not changed and ratio == self.ratio:
                trials.adopt(trial)  # for its remarks, about what holds the budget
                context.remark(place, "nothing can be removed", "lower round_to or minimum, or see what is frozen")
                return
            quality = trials.quality(trial)
            trials.figures = f"ratio {ratio:.1%}: {trials.cut(trial):.1%} of the {self.budget} gone, {quality}"
            if floor.holds(quality):
                low, best = ratio, trials.figures
                trials.adopt(trial)
            else:
                high = ratio
            if low == self.ratio:
                break
            ratio = (low + high) / 2
        if best:
            context.remark(place, f"the floor ({floor}) is kept by {best}")
        else:
            why = f"nothing was pruned: {trials.figures}, and the floor is {floor}"
            context.remark(place, why, "give a lower floor or more data")

    def _check_search(self) -> None:
        if self.resolution <= 0:
            raise DeburrError("E203", "resolution is out of range", where=f"pass {self}", hint="it is above 0")
        if self.max_loss is None and self.min_sqnr is None:
            raise DeburrError("E203", "there is no floor to search for", where=f"pass {self}", hint="give max_loss or min_sqnr")
