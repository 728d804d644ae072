"""What every search space offers: drawing schedules, changing them, and their fields as JSON."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import fields, replace
from random import Random
from typing import Any

from deburr.targets.schedules.tile import ConvSchedule

LARGEST_WASTE = 1.25  # images, rows and columns that are computed, over those that are wanted
LARGEST_BODY = 400  # vector operations of an unrolled loop: more, and the instruction cache is what it waits for
_TRIES = 400  # draws after which a space counts as empty


class Space(ABC):
    """The legal schedules of one workload on one target; the default is one of them."""

    default: ConvSchedule

    @property
    @abstractmethod
    def options(self) -> Mapping[str, tuple[Any, ...]]:
        """What each parameter of `ConvSchedule` may be by itself; `legal` says which go together."""

    @abstractmethod
    def legal(self, schedule: ConvSchedule) -> bool:
        """Whether the template takes it, it fits the registers, wastes little, and no simpler schedule gives the same code."""

    @abstractmethod
    def estimate(self, schedule: ConvSchedule) -> float:
        """The analytic cost of the register tile; 0 for templates that have none. Less is better."""

    def sample(self, random: Random) -> ConvSchedule | None:
        """Any legal schedule; None where draws find none."""
        for _ in range(_TRIES):
            drawn = ConvSchedule(**{name: random.choice(values) for name, values in self.options.items()})
            if self.legal(drawn):
                return drawn
        return None

    def mutate(self, schedule: ConvSchedule, random: Random) -> ConvSchedule | None:
        """A legal schedule that differs in one to three parameters; None where draws find none."""
        free = [name for name, values in self.options.items() if len(values) > 1]
        for _ in range(_TRIES if free else 0):
            names = random.sample(free, min(len(free), random.choice((1, 1, 2, 2, 3))))
            changed = replace(schedule, **{name: random.choice(self.options[name]) for name in names})
            if changed != schedule and self.legal(changed):
                return changed
        return None


def to_fields(schedule: ConvSchedule) -> dict[str, Any]:
    """The parameters by name, for JSON."""
    return {field.name: getattr(schedule, field.name) for field in fields(schedule)}


def from_fields(given: Mapping[str, Any]) -> ConvSchedule:
    """The schedule that `to_fields` wrote.

    :raises ValueError: where a parameter is unknown or of another type.
    """
    kinds = {"int": int, "bool": bool}
    for field in fields(ConvSchedule):
        if field.name in given and type(given[field.name]) is not kinds[str(field.type)]:
            raise ValueError(f"{field.name}: {given[field.name]!r} is no {field.type}")
    try:
        return ConvSchedule(**given)
    except TypeError as error:
        raise ValueError(str(error)) from None
