"""Pruning tried out on a copy: the model of the pipeline changes only when a trial is adopted, whole.

So there is nothing to undo when a trial is not good enough, fails or is interrupted.
"""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass, field

from deburr.ir.duplicate import duplicate
from deburr.ir.model import Model
from deburr.ir.samples import Samples
from deburr.passes.analysis.cost import cost
from deburr.passes.core import Context, Pass
from deburr.passes.manager import run_pass
from deburr.passes.prune.budget import Ledger
from deburr.passes.prune.channels import PruneChannels
from deburr.passes.prune.quality import Quality, measure
from deburr.passes.prune.reference import Reference


@dataclass
class Trials:
    """Trials of one pass over `context`.

    :param from_start: every trial starts from the model that the pass was given, else from the one adopted last.
    :param figures: how far it is, for the progress bar.
    :param recovery: passes that mend what is left, in turn.
    :param fit: samples that criteria and compensation may look at.
    :param held_out: samples that quality is measured on.
    """

    context: Context
    pruning: PruneChannels
    recovery: tuple[Pass, ...]
    fit: Samples
    held_out: Samples
    from_start: bool = False
    figures: str = "prune"
    _first: Context = field(init=False)
    _start: float = field(init=False)
    _reference: Model = field(init=False)
    _told: int = field(init=False)

    def __post_init__(self) -> None:
        known = self.context.reference
        self._reference = known.model if known is not None else duplicate(self.context.model)
        self._first = dataclasses.replace(self.context)
        self._start, self._told = self.amount(self.context), len(self.context.remarks)

    def run(self, ratio: float) -> tuple[Context, bool]:
        """A copy with `ratio` of the budget pruned away and the rest mended, in a context of its own; and whether something
        went.

        :raises KeyboardInterrupt: also where a pass of the recovery would end with its best: a trial is finished or dropped.
        """
        given = self._first if self.from_start else self.context
        known = given.reference
        aside = dataclasses.replace(
            given, model=duplicate(given.model), data=self.fit, remarks=[], running=None, _analyses={},
            reference=Reference(self._reference, copy.deepcopy(known.kept) if known is not None else {}),
        )  # fmt: skip
        changed = run_pass(dataclasses.replace(self.pruning, ratio=ratio), aside)
        for pass_ in self.recovery if changed else ():
            run_pass(pass_, aside)
            if aside.interrupted is not given.interrupted:
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

    def quality(self, trial: Context) -> Quality:
        return measure(trial.model, self._reference, self.held_out)

    def adopt(self, trial: Context) -> None:
        """The pipeline goes on with this model; its remarks take the place of those of the trial before."""
        self.context.adopt(trial)
        self.context.remarks[self._told :] = [
            remark for remark in trial.remarks if remark not in self.context.remarks[: self._told]
        ]
