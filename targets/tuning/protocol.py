"""What the tuner asks and what it is told: the seam between searching and measuring, where tests put a measure of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from deburr.targets.schedules.tile import ConvSchedule

OK, WRONG, REFUSED, CRASHED, HUNG = "ok", "wrong numbers", "refused", "crashed", "hung"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One candidate measured against the default schedule, in turns, so that what slows the machine down slows both.

    :param status: `OK`; `WRONG` where the numbers are not the default's, `REFUSED` where it does not build, `CRASHED` or `HUNG`
        where it took the worker with it, each time it was tried.
    :param seconds: the median of its rounds.
    :param default_seconds: that of the default's rounds.
    :param ratios: candidate over default, round by round.
    :param fastest: the candidate's fastest round over the default's.
    """

    status: str
    seconds: float = 0.0
    default_seconds: float = 0.0
    ratios: tuple[float, ...] = ()
    fastest: float = float("inf")
    why: str = ""

    @property
    def ratio(self) -> float:
        """The median of the ratios; infinite for a candidate that does not count."""
        if self.status != OK:
            return float("inf")
        ordered = sorted(self.ratios)
        return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


class Measure(Protocol):
    """Something that times schedules."""

    def measure(self, workload: str, schedules: Sequence[ConvSchedule], rounds: int) -> list[Outcome]:
        """Outcomes in the order of `schedules`, `rounds` rounds each, in turns with the default of `workload` (its text)."""
        ...
