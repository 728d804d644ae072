"""What pruning by trial has in common: the options, and how the data is split."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Literal

from deburr.ir.errors import DeburrError
from deburr.passes.core import Context, Pass
from deburr.passes.prune.channels import PruneChannels
from deburr.passes.prune.compensate import Compensate
from deburr.passes.prune.quality import Floor
from deburr.passes.prune.trial import Trials


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

    def trials(self, context: Context, *, from_start: bool = False) -> tuple[Trials, Floor]:
        """:raises DeburrError: E203 for an option out of its range, E206 without data or the labels that the floor needs, E305
        with a single sample."""
        self._check()
        if context.data is None:
            raise DeburrError("E206", "trials are measured on data", where=f"pass {self}", hint="give --data FILE.npz")
        floor = Floor.of(self.max_loss, self.min_sqnr, context.data, f"pass {self}")
        held_out, fit = context.data.split(self.validate, context.random())
        options = {option.name: getattr(self, option.name) for option in dataclasses.fields(PruneChannels)}
        return Trials(context, PruneChannels(**options), self.recovery, fit, held_out, from_start), floor

    @property
    def recovery(self) -> tuple[Pass, ...]:
        """The passes that mend what a trial has left."""
        return (Compensate(),) if self.recover == "compensate" else ()

    def _check(self) -> None:
        super()._check()
        if not 0 < self.validate < 1:
            raise DeburrError(
                "E203", "validate is out of range", where=f"pass {self}", hint="it is a share of the samples, between 0 and 1"
            )
