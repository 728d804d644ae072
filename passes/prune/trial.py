"""Pruning tried out on a copy."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from deburr.passes.analysis.cost import cost
from deburr.passes.core import Context, Pass
from deburr.passes.manager import run_pass
from deburr.passes.prune.budget import Ledger
from deburr.passes.prune.channels import PruneChannels
from deburr.passes.prune.reference import Reference
from deburr.passes.trial.trials import Trials


@dataclass(kw_only=True)
class PruningTrials(Trials):
    """Trials of one pruning pass; criteria and compensation may look at the samples to fit on.

    :param recovery: passes that mend what is left, in turn.
    :param from_start: every trial starts from the model that the pass was given, else from the one adopted last.
    """

    pruning: PruneChannels
    recovery: tuple[Pass, ...]
    from_start: bool = False
    figures: str = "prune"
    _first: Context = field(init=False)
    _start: float = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._first = dataclasses.replace(self.context)
        self._start = self.amount(self.context)

    def run(self, ratio: float) -> tuple[Context, bool]:
        """A copy with `ratio` of the budget pruned away and the rest mended, in a context of its own; and whether something
        went.

        :raises KeyboardInterrupt: also where a pass of the recovery would end with its best: a trial is finished or dropped.
        """
        aside = self.aside(self._first if self.from_start else self.context)
        aside.reference = aside.reference or Reference(self.reference)
        changed = run_pass(dataclasses.replace(self.pruning, ratio=ratio), aside)
        before = aside.interrupted
        for pass_ in self.recovery if changed else ():
            run_pass(pass_, aside)
            if aside.interrupted is not before:
                raise KeyboardInterrupt
        return aside, changed

    def cut(self, trial: Context) -> float:
        """The share of the budget that is gone, against the model that the pass was given."""
        return 1 - self.amount(trial) / self._start if self._start else 0.0

    def amount(self, context: Context) -> float:
        """What the budget counts, of a model as it is. Channels that nothing can remove are left out."""
        budget = self.pruning.budget
        if budget == "latency" and context.latency is not None:
            return float(context.latency(context.model))
        graph = context.model.graph
        analysis = context.analysis(self.pruning.analyze, graph)
        ledger = Ledger(analysis, context.analysis(cost, graph))
        return ledger.of("macs" if budget == "latency" else budget, analysis.keep_all())
