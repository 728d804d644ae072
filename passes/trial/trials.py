"""Changes tried out on a copy: the model of the pipeline changes only when a trial is adopted, whole.

So there is nothing to undo when a trial is not good enough, fails or is interrupted.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from deburr.ir.duplicate import duplicate
from deburr.ir.errors import DeburrError
from deburr.ir.model import Model
from deburr.ir.samples import Samples
from deburr.passes.core import Context, Remark
from deburr.passes.prune.reference import Reference
from deburr.passes.trial.quality import Floor, Quality, measure


class Measured(Protocol):
    """The options of a pass that keeps a floor: see `Floor`. `validate` is the share of the samples that is kept apart."""

    @property
    def max_loss(self) -> float | None: ...

    @property
    def min_sqnr(self) -> float | None: ...

    @property
    def validate(self) -> float: ...


def prepare(pass_: Measured, context: Context) -> tuple[Floor, Samples, Samples]:
    """The floor that can be asked with the data at hand, the samples kept apart to measure it on, and the others.

    :raises DeburrError: E203 for a share out of its range, E206 without data or the labels that the floor needs, E305 with a
        single sample.
    """
    where = f"pass {pass_}"
    if not 0 < pass_.validate < 1:
        raise DeburrError("E203", "validate is out of range", where=where, hint="it is a share of the samples, between 0 and 1")
    if context.data is None:
        raise DeburrError("E206", "trials are measured on data", where=where, hint="give --data FILE.npz")
    floor = Floor.of(pass_.max_loss, pass_.min_sqnr, context.data, where)
    return floor, *context.data.split(pass_.validate, context.random())


@dataclass
class Trials:
    """Trials of one pass over `context`.

    :param fit: samples that what is tried may look at.
    :param held_out: samples that quality is measured on, against the model before the first pruning, or as it is now.
    :param figures: how far it is, for the progress bar.
    """

    context: Context
    fit: Samples
    held_out: Samples
    figures: str = ""
    reference: Model = field(init=False)
    _told: int = field(init=False)

    def __post_init__(self) -> None:
        known = self.context.reference
        self.reference = known.model if known is not None else duplicate(self.context.model)
        self._told = len(self.context.remarks)

    def aside(self, given: Context | None = None) -> Context:
        """A copy of the model in a context of its own, with nothing but the samples to fit on."""
        given = given or self.context
        known = given.reference
        reference = Reference(self.reference, copy.deepcopy(known.kept)) if known is not None else None
        return dataclasses.replace(
            given, model=duplicate(given.model), data=self.fit, remarks=[], running=None, reference=reference, _analyses={}
        )

    def quality(self, trial: Context) -> Quality:
        return measure(trial.model, self.reference, self.held_out)

    def adopt(self, trial: Context, remarks: Sequence[Remark] | None = None) -> None:
        """The pipeline goes on with this model; its remarks, or those given, take the place of those of the trial before."""
        self.context.adopt(trial)
        before = self.context.remarks[: self._told]
        told = trial.remarks if remarks is None else remarks
        self.context.remarks[self._told :] = [remark for remark in told if remark not in before]
