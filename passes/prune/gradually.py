"""Iterative pruning: a little goes, the rest is refitted and measured, and so on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

from deburr.ir.errors import DeburrError
from deburr.ir.graph import Graph
from deburr.passes.core import Context
from deburr.passes.prune.iterative import IterativePruning
from deburr.passes.prune.trial import PruningTrials
from deburr.passes.trial.quality import Floor


@dataclass(frozen=True)
class PruneGradually(IterativePruning):
    """Prune in `steps`, each followed by compensation and a measurement, until `ratio` of the budget is gone.

    The `schedule` says how much is gone after step k of n: linear is ratio·k/n; cubic is ratio·(1 - (1 - k/n)³), large steps
    first, while there is most to spare (Zhu & Gupta 2017, "To prune, or not to prune", eq. 1). A step makes up for what the
    ones before it cut too much or too little.

    A random share `validate` of the samples is kept from criteria and compensation and measured on. The pass stops before a
    step that breaks the floor: `max_loss` of top-1 accuracy (0.01 is a point) where the data has labels, else `min_sqnr`, in
    decibel, of the worst float output against the model before pruning. `recover=none` leaves out compensation. The other
    options are those of prune-channels. Ctrl-C ends the pass with the steps that are done.
    """

    name: ClassVar[str] = "prune-gradually"

    steps: int = 4
    schedule: Literal["linear", "cubic"] = "cubic"

    def run(self, graph: Graph, context: Context) -> None:
        """:raises DeburrError: as prune-channels; E206 if the floor needs labels and has none, E305 for a single sample."""
        if self.steps < 1:
            raise DeburrError("E203", "steps is out of range", where=f"pass {self}", hint="it is at least 1")
        trials, floor = self.trials(context)
        self._loop(trials, floor, context)

    def _loop(
        self, trials: PruningTrials, floor: Floor, context: Context, done: int = 0, after: Callable[[int], None] | None = None
    ) -> None:
        """:param done: how many steps are behind the model already.
        :param after: called with the number of a step once it is adopted.
        """
        for number in context.progress(range(done + 1, self.steps + 1), self.steps - done, lambda: trials.figures):
            reached = self._step(number, trials, floor, context)
            if reached is None:
                return
            trials.figures = reached
            if after is not None:
                after(number)

    def gone_after(self, step: int) -> float:
        """The share of the budget that is to be gone after so many steps."""
        done = step / self.steps
        return self.ratio * (done if self.schedule == "linear" else 1 - (1 - done) ** 3)

    def _step(self, number: int, trials: PruningTrials, floor: Floor, context: Context) -> str | None:
        """Adopt one more step; the figures reached, or None if it broke the floor."""
        wanted, gone = self.gone_after(number), trials.cut(context)
        trial, changed = trials.run(max(0.0, 1 - (1 - wanted) / (1 - gone)))
        if not changed:
            if number == self.steps:  # only the last one has something to say: prune-channels, about what holds the budget
                trials.adopt(trial)
            return f"step {number}/{self.steps}: nothing more to remove"
        quality = trials.quality(trial)
        figures = f"{trials.cut(trial):.1%} of the {self.budget} gone, {quality}"
        if not floor.holds(quality):
            context.remark(
                f"graph {context.model.graph.name!r}", f"stopped at {gone:.1%} of the {self.budget}: step {number} of "
                f"{self.steps} breaks the floor ({floor}): {figures}", "take more steps, more data, or a lower floor",
            )  # fmt: skip
            return None
        trials.adopt(trial)
        return f"step {number}/{self.steps}: {figures}"
