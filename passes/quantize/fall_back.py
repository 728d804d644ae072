"""The search for the least that has to fall back from few bits so that a floor of quality holds."""

from __future__ import annotations

import dataclasses
import enum
import glob
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field

from deburr.passes.core import Context, Remark
from deburr.passes.manager import run_pass
from deburr.passes.quantize.placement import KEPT
from deburr.passes.quantize.quantize import Quantize
from deburr.passes.quantize.units import Unit, ranked_units
from deburr.passes.trial.quality import Floor
from deburr.passes.trial.trials import Trials

Walk = Generator[None, None, bool]  # pauses after every trial


class Level(enum.IntEnum):
    """What a unit may be, from what was asked for to what costs no accuracy."""

    ASKED = 0
    EIGHT = 1  # bits of the weights
    FLOAT = 2


@dataclass
class FallBack:
    """A search over trials of one `Quantize`, each from the float model, each measured on samples kept apart.

    Quality is taken to grow with every unit that falls back: then bisection over the ranking finds the shortest beginning of
    it that is needed, and trying parts of it again, halving what fails, finds those that were not. Where noise on few samples
    breaks that, the result still keeps the floor, but more may have fallen back than had to.

    :param left: how many more trials may be made.
    """

    trials: Trials
    quantize: Quantize
    floor: Floor
    where: str
    left: int
    units: list[Unit] = field(default_factory=list)
    reached: dict[Unit, Level] | None = None  # of the model adopted last
    _first: Context = field(init=False)

    def __post_init__(self) -> None:
        self._first = dataclasses.replace(self.trials.context)

    def walk(self) -> Generator[None, None, None]:
        """Pauses after every trial; the model of the pipeline is the best one so far that keeps the floor."""
        if (yield from self._holds({})):
            return
        base = Level.ASKED
        for level in (Level.EIGHT, Level.FLOAT) if self.quantize.bits < 8 else (Level.FLOAT,):
            units = self.units = self._ranked(base)
            if level is Level.FLOAT or (yield from self._holds(dict.fromkeys(units, level))):
                count = yield from self._bisect(units, base, level)
                if self.reached is not None:
                    yield from self._take_back(units[: count - 1][::-1], base)
                break
            base = level
        if base is Level.EIGHT and self.reached is not None:
            yield from self._take_back([unit for unit in units[::-1] if self.reached[unit] is base], Level.ASKED)

    def _ranked(self, base: Level) -> list[Unit]:
        aside, asked = self.trials.aside(self._first), self.quantize
        if base is Level.EIGHT:
            asked = dataclasses.replace(asked, bits=8)
        for step in asked.notes:
            run_pass(step, aside)
        return ranked_units(aside.model.graph, aside, asked.dialect)

    def _pass(self, levels: Mapping[Unit, Level]) -> Quantize:
        """The pass with those that fall back added to what the user named."""

        def names(level: Level) -> list[str]:
            return [glob.escape(name) for unit, reached in levels.items() if reached is level for name in unit.outputs]

        keep, eight = names(Level.FLOAT), names(Level.EIGHT)
        return dataclasses.replace(
            self.quantize, keep=(*self.quantize.keep, *keep), eight_bits=(*self.quantize.eight_bits, *eight)
        )

    def _holds(self, levels: dict[Unit, Level]) -> Walk:
        """One trial: adopt it if the floor holds. False when no trial is left."""
        if self.left <= 0:
            return False
        self.left -= 1
        trial, levels = self.trials.aside(self._first), {unit: levels.get(unit, Level.ASKED) for unit in self.units}
        run_pass(self._pass(levels), trial)
        quality = self.trials.quality(trial)
        holds = self.floor.holds(quality)
        self.trials.figures = f"{_count(levels)}: {quality}" + ("" if holds else ", below the floor")
        if holds:
            self.trials.adopt(trial, self._remarks(levels, trial))
            self.reached = levels
        yield
        return holds

    def _bisect(self, units: Sequence[Unit], base: Level, level: Level) -> Generator[None, None, int]:
        """How many of the ranking have to fall back: fewer are known not to do, all are known to do."""
        low, high = 0, len(units)
        while high - low > 1 and self.left > 0:
            middle = (low + high) // 2
            trial = {unit: level if index < middle else base for index, unit in enumerate(units)}
            low, high = (low, middle) if (yield from self._holds(trial)) else (middle, high)
        return high

    def _take_back(self, units: Sequence[Unit], level: Level) -> Generator[None, None, None]:
        """Let as many of these as possible return to a level with fewer bits: all at once, or each half for itself."""
        if not units or self.reached is None or (yield from self._holds(self.reached | dict.fromkeys(units, level))):
            return
        if len(units) > 1:
            half = len(units) // 2
            yield from self._take_back(units[:half], level)
            yield from self._take_back(units[half:], level)

    def _remarks(self, levels: Mapping[Unit, Level], trial: Context) -> list[Remark]:
        """Those of the trial, with the reason for what fell back in place of that it was named."""
        name = self.trials.context.running.name if self.trials.context.running else ""
        told = {Level.FLOAT: "stays float", Level.EIGHT: "keeps 8 bits"}
        ours = {
            label: Remark(name, label, f"{told[level]}, or the floor ({self.floor}) breaks: {unit.cost}")
            for unit, level in levels.items() if level in told
            for label in unit.labels
        }  # fmt: skip
        others = [one for one in trial.remarks if not (one.where in ours and one.reason.endswith(KEPT))]
        summary = Remark(name, self.where, f"the floor ({self.floor}) is kept by {self.trials.figures}")
        return [*others, *ours.values(), summary]


def _count(levels: Mapping[Unit, Level]) -> str:
    count: Callable[[Level], int] = list(levels.values()).count
    parts = [
        f"{count(level)} of {len(levels)} units {what}"
        for level, what in ((Level.FLOAT, "in float"), (Level.EIGHT, "at 8 bits")) if count(level)
    ]  # fmt: skip
    return " and ".join(parts) or "all in integers"
