"""What `deburr optimize --explain` prints: the layers whose rounding costs most."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from deburr.passes.core import Context, Pass
from deburr.passes.instruments import Instrument, Step
from deburr.passes.quantize.sensitivity import Sensitivity, sensitivities

SHOWN = 10
# Behind these, weights lie on their grid or the graph is an integer one: it is too late to look.
_LAST_CALL = ("round-weights", "correct-bias", "insert-qdq")


@dataclass
class Explanation(Instrument):
    """Measures the sensitivity of the layers once, when they are noted for rounding and not yet rounded."""

    layers: list[Sensitivity] = field(default_factory=list)

    def before_pass(self, step: Step, context: Context) -> None:
        self.before_part(step.pass_, context)

    def before_part(self, part: Pass, context: Context) -> None:
        if part.name in _LAST_CALL and not self.layers:
            self.layers = sensitivities(context.model.graph, context, dialect=getattr(part, "dialect", "ort"))

    @property
    def refusal(self) -> str:
        """Why there is nothing to show, or nothing."""
        if self.layers:
            return ""
        return "Nothing to explain: the pipeline has no quantize, nor scale-weights with round-weights or insert-qdq behind it."

    @property
    def columns(self) -> tuple[str, ...]:
        return ("layer", "bits", "SQNR dB", "share of the noise", *(("points lost",) if self._labelled else ()))

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """The costliest first, at most `SHOWN`, and the sum of the others."""
        total = sum(one.noise for one in self.layers) or 1.0
        made = [self._row(_name(one), str(one.bits), one, total) for one in self.layers[:SHOWN]]
        rest = sum(one.noise for one in self.layers[SHOWN:])
        if self.layers[SHOWN:]:
            others = (f"{len(self.layers) - SHOWN} others", "", "", f"{rest / total:.1%}")
            made.append(others + (("",) if self._labelled else ()))
        return made

    def to_json(self) -> list[dict[str, Any]]:
        """All layers, the costliest first; `sqnr_db` is None where rounding changed nothing, because JSON has no infinity."""
        return [
            {
                "layer": _name(one), "bits": one.bits, "noise": one.noise,
                "sqnr_db": one.sqnr_db if one.noise > 0 else None, "loss": one.loss,
            }
            for one in self.layers
        ]  # fmt: skip

    @property
    def _labelled(self) -> bool:
        return any(one.loss is not None for one in self.layers)

    def _row(self, name: str, bits: str, one: Sensitivity, total: float) -> tuple[str, ...]:
        points = (("" if one.loss is None else f"{100 * one.loss:.2f}"),) if self._labelled else ()
        return (name, bits, f"{one.sqnr_db:.1f}", f"{one.noise / total:.1%}", *points)


def _name(one: Sensitivity) -> str:
    return one.node.name or one.node.output().name
