"""What there is to choose from: passes, recipes, targets, and plugins that are broken. Commands and README show it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Option:
    """A field of a pass, as pipeline text writes it."""

    name: str
    default: str


@dataclass(frozen=True, slots=True)
class PassEntry:
    """A pass that can be used. `origin` is `built in`, or the package that brings it."""

    name: str
    summary: str
    options: tuple[Option, ...]
    origin: str

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclass(frozen=True, slots=True)
class BrokenEntry:
    """A plugin that cannot be used, and why."""

    group: str
    name: str
    origin: str
    reason: str

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def passes() -> list[PassEntry]:
    """Every pass that loads, in the registry's order."""
    from deburr.passes.registry import passes as registered

    known = registered()
    return [
        PassEntry(name, summary(cls), tuple(_options(cls)), known.origin(name)) for name, cls in known.items()
    ]  # fmt: skip


def recipes() -> dict[str, str]:
    """Name -> pipeline text."""
    from deburr.passes.registry import recipes as registered

    return dict(registered().items())


def broken() -> list[BrokenEntry]:
    """What was found and cannot be used."""
    from deburr.passes.registry import broken as registered

    return [BrokenEntry(one.group, one.name, one.origin, one.reason) for one in registered()]


def targets() -> list[dict[str, str]]:
    """Presets, and the host where this machine is one that code can be made for."""
    from deburr.ir.errors import DeburrError
    from deburr.targets.target import find, names

    found = []
    for name in names():
        try:
            target = find(name)
        except DeburrError as error:  # the host may be a machine that is not supported
            found.append({"name": name, "isa": "-", "cpu": "-", "about": error.why})
            continue
        cpu = " ".join(target.gpu) or str(target.tvm.get("mcpu", "-"))
        found.append({"name": name, "isa": target.isa, "cpu": cpu, "about": target.about})
    return found


def summary(cls: type) -> str:
    """The first line of the docstring."""
    lines = (cls.__doc__ or "").strip().splitlines()
    return lines[0].strip() if lines else ""


def _options(cls: type[Any]) -> list[Option]:
    from deburr.passes.options import print_value

    found = []
    for field in dataclasses.fields(cls):
        default = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
        found.append(Option(field.name, print_value(default)))
    return found
