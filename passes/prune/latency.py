"""A budget in milliseconds: candidates are pruned on a copy and measured on the target."""

from __future__ import annotations

from collections.abc import Callable

from deburr.ir.errors import DeburrError
from deburr.ir.model import Model
from deburr.ir.onnx_reader import read
from deburr.ir.onnx_writer import to_proto
from deburr.passes.analysis.channels import ChannelAnalysis
from deburr.passes.analysis.classes import Mask, Scores
from deburr.passes.analysis.groups import Channels
from deburr.passes.core import Context
from deburr.passes.prune.budget import Limits, Ordered
from deburr.passes.prune.surgery import remove_channels

MEASUREMENTS = 8


def choose_by_latency(
    analysis: Channels, analyze: ChannelAnalysis, scores: Scores, limits: Limits, context: Context, *, where: str
) -> Mask:
    """A sound keep-set with which the model takes at most 1 - `limits.ratio` of its time, found by bisection over the number
    of removed channels: at most `MEASUREMENTS` models are measured, the original among them.

    A clock is not exact: two runs may end with different models. If no model that was measured is fast enough, the fastest.

    :param analyze: what made `analysis`: a copy has to be analysed the same way, or a keep-set would mean something else there.
    :raises DeburrError: E206 without a target, and what measuring raises.
    """
    if context.latency is None:
        raise DeburrError(
            "E206", "the budget latency needs a target to measure on", where=where, why="none was given",
            hint="give --target NAME, or another budget such as macs",
        )  # fmt: skip
    ordered = Ordered(analysis, scores, limits)
    clock = _Clock(analysis, analyze, context, context.latency)
    whole = analysis.keep_all()
    before = clock.measure(whole)
    goal, best = (1 - limits.ratio) * before, (before, whole)
    low, high = 0, ordered.count
    while low < high and clock.count < MEASUREMENTS:
        middle = (low + high) // 2 if low or high < ordered.count else max(1, round(limits.ratio * high))
        keep, _ = analysis.repair(ordered.keep(middle), scores)
        found = clock.measure(keep)
        if found <= goal:
            high, best = middle, (found, keep)
        else:
            low = middle + 1
            best = min(best, (found, keep), key=lambda pair: pair[0]) if best[0] > goal else best
    context.remark(
        f"graph {analysis.graph.name!r}",
        f"{clock.count} models measured: {before:.4g} ms before, {best[0]:.4g} ms with what was chosen, {goal:.4g} ms wanted",
        "" if best[0] <= goal else "the budget was not met: see what is frozen, or what of the time no channel takes",
    )
    return best[1]


class _Clock:
    """Measures keep-sets, each once; `count` says how many."""

    def __init__(
        self, analysis: Channels, analyze: ChannelAnalysis, context: Context, latency: Callable[[Model], float]
    ) -> None:
        self._analysis, self._analyze, self._context, self._latency = analysis, analyze, context, latency
        self._known: dict[bytes, float] = {}

    @property
    def count(self) -> int:
        return len(self._known)

    def measure(self, keep: Mask) -> float:
        """Milliseconds of the model with `keep`; the model itself stays as it is."""
        key = keep.tobytes()
        if key not in self._known:
            model = read(to_proto(self._context.model))
            aside = Context(model)
            again = self._analyze(model.graph, aside)
            assert again.class_count == self._analysis.class_count
            if not keep.all():
                remove_channels(again, keep, aside)
            self._known[key] = float(self._latency(model))
        return self._known[key]
