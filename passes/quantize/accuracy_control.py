"""Quantization that keeps a floor of quality: what would break it stays float."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from deburr.ir.errors import DeburrError
from deburr.ir.graph import Graph
from deburr.passes.core import Context
from deburr.passes.quantize.fall_back import FallBack
from deburr.passes.quantize.placement import is_quantized
from deburr.passes.quantize.quantize import Quantize
from deburr.passes.trial.trials import Trials, prepare


@dataclass(frozen=True)
class QuantizeWithAccuracyControl(Quantize):
    """Quantize, and let the layers that cost most fall back to float (from 4 bits: to 8, then float) until a floor is met.

    Layers that read one quantizer fall back together. Each is rounded alone to rank them by the noise at the outputs;
    bisection finds how many of the ranking have to fall back, then those that did not have to are taken back. Every trial is
    a whole quantization from the float model, at most `trials` of them.

    A random share `validate` of the samples is kept from quantization and measured on. The floor is `max_loss` of top-1
    accuracy (0.01 is a point) where the data has labels, else `min_sqnr`, in decibel, of the worst float output, both against
    the model as it was, or as it was before it was pruned. The other options are those of quantize. Ctrl-C ends the pass with
    the best model so far.
    """

    name: ClassVar[str] = "quantize-with-accuracy-control"
    keeps_best: ClassVar[bool] = True

    max_loss: float | None = 0.01
    min_sqnr: float | None = 20.0
    validate: float = 0.2
    trials: int = 24

    def run(self, graph: Graph, context: Context) -> None:
        """:raises DeburrError: what quantize raises; E203 for an option out of its range or without a floor, E206 if the floor
        needs labels and there are none, E305 for a single sample."""
        self._check_search()
        if is_quantized(graph):
            context.remark(graph.name, "the model is quantized already")
            return
        floor, held_out, fit = prepare(self, context)
        trials, where = Trials(context, fit, held_out, "measuring the float model"), f"graph {graph.name!r}"
        quality = trials.quality(context)
        if not floor.holds(quality):
            context.remark(
                where, f"nothing was quantized: the float model itself misses the floor ({floor}): {quality}",
                "give a lower floor, or prune less",
            )  # fmt: skip
            return
        options = {option.name: getattr(self, option.name) for option in dataclasses.fields(Quantize)}
        search = FallBack(trials, Quantize(**options), floor, where, self.trials)
        for _trial in context.progress(search.walk(), self.trials, lambda: trials.figures):
            pass
        if search.reached is None:
            why = f"nothing was quantized: with {trials.figures}, and the floor is {floor}"
            context.remark(where, why, "give a lower floor, more trials, or better options of quantize")
        elif search.left <= 0:
            context.remark(where, f"the search ended after {self.trials} trials", "more of them may leave less in float")

    def _check_search(self) -> None:
        if self.trials < 1:
            raise DeburrError("E203", "trials is out of range", where=f"pass {self}", hint="it is at least 1")
        if self.max_loss is None and self.min_sqnr is None:
            raise DeburrError("E203", "there is no floor to keep", where=f"pass {self}", hint="give max_loss or min_sqnr")
