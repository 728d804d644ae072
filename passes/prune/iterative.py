"""What pruning by trial has in common: the options."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Literal

from deburr.passes.core import Context, Pass
from deburr.passes.prune.channels import PruneChannels
from deburr.passes.prune.compensate import Compensate
from deburr.passes.prune.trial import PruningTrials
from deburr.passes.trial.quality import Floor
from deburr.passes.trial.trials import prepare


@dataclass(frozen=True)
class IterativePruning(PruneChannels):
    """The options of prune-channels, with those of trials behind them; the model changes only when a trial is adopted."""

    needs_data: ClassVar[bool] = True
    keeps_best: ClassVar[bool] = True

    criterion: str = "reconstruction"
    per_cost: bool = True
    recover: Literal["compensate", "none"] = "compensate"
    max_loss: float | None = None
    min_sqnr: float | None = None
    validate: float = 0.2

    def trials(self, context: Context, *, from_start: bool = False) -> tuple[PruningTrials, Floor]:
        """:raises DeburrError: E203 for an option out of its range, and what `prepare` raises."""
        self._check()
        floor, held_out, fit = prepare(self, context)
        options = {option.name: getattr(self, option.name) for option in dataclasses.fields(PruneChannels)}
        pruning = PruneChannels(**options)
        return PruningTrials(context, fit, held_out, pruning=pruning, recovery=self.recovery, from_start=from_start), floor

    @property
    def recovery(self) -> tuple[Pass, ...]:
        """The passes that mend what a trial has left."""
        return (Compensate(),) if self.recover == "compensate" else ()
