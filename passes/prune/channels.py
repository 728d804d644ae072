"""Structured pruning: whole channels go, exactly, by surgery on constants alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from deburr.ir.errors import DeburrError
from deburr.ir.graph import Graph
from deburr.passes import registry
from deburr.passes.analysis.channels import ChannelAnalysis
from deburr.passes.analysis.classes import Scores
from deburr.passes.analysis.cost import cost
from deburr.passes.analysis.groups import Channels
from deburr.passes.analysis.walk import ChannelOptions, Groups, Heads
from deburr.passes.core import Context, Pass
from deburr.passes.prune.budget import Budget, Counted, Ledger, Limits, choose
from deburr.passes.prune.latency import choose_by_latency
from deburr.passes.prune.reference import reference_of
from deburr.passes.prune.scope import Scope, compare_within, leave_alone
from deburr.passes.prune.surgery import remove_channels

_LANES = 8  # where no target is known: vectors are 8 or 16 lanes wide on most CPUs


@dataclass(frozen=True)
class PruneChannels(Pass):
    """Remove whole channels, and every slice of every weight that only they fed.

    The channels with the lowest scores go, until `ratio` of the budget is gone: MACs, parameters, bytes of the constants,
    latency (measured on the target), or the number of channels. `criterion` scores them; `per_cost` divides by what a channel
    costs in the budget's unit (MACs for latency). `scope` says which channels compete: those of the whole model, or each
    group (or all groups of the same structure) loses the same share. Groups keep a multiple of `round_to` channels, none for
    the vector width of the target, and at least `minimum`. `keep` names nodes and values, as patterns with * and ?, whose
    channels all stay.

    `heads` says what goes of an attention: whole heads, or the same positions inside every head. `groups` says the same of
    grouped convolutions: whole groups, or the same positions inside every group. `lossy` also removes channels
    from normalizations over them, whose statistics then change: the result is not exact any more.
    """

    name: ClassVar[str] = "prune-channels"
    idempotent: ClassVar[bool] = False
    main_graph_only: ClassVar[bool] = True
    minimum_opset: ClassVar[int] = 13
    tolerance: ClassVar[float | None] = None

    ratio: float = 0.5
    criterion: str = "l2"
    budget: Budget = "macs"
    # Unrounded counts are padded up to vectors and run no faster.
    round_to: int | None = None
    minimum: int = 1
    per_cost: bool = False
    heads: Heads = "whole"
    groups: Groups = "inner"
    lossy: bool = False
    scope: Scope = "global"
    keep: tuple[str, ...] = ()

    def run(self, graph: Graph, context: Context) -> None:
        """:raises DeburrError: E203 for an option out of its range, or a pattern of `keep` that matches nothing; E206 if the
        criterion needs data and there is none, or the budget a target."""
        self._check()
        analysis = context.analysis(self.analyze, graph)
        for frozen in analysis.frozen:
            context.remark(frozen.node or frozen.value, f"keeps axis {frozen.axis} of {frozen.value.name!r}: {frozen.reason}")
        analysis = leave_alone(analysis, self.keep, f"pass {self}")
        scores = registry.criteria().find(self.criterion, "E203", "criterion", f"pass {self}")(analysis, context)
        self._prune(graph, analysis, scores, context)

    @property
    def analyze(self) -> ChannelAnalysis:
        return ChannelAnalysis(ChannelOptions(self.heads, self.lossy, self.groups))

    def _prune(self, graph: Graph, analysis: Channels, scores: Scores, context: Context) -> None:
        ledger = Ledger(analysis, context.analysis(cost, graph))
        counted: Counted = "macs" if self.budget == "latency" else self.budget
        if self.per_cost:
            scores = scores / (ledger.per_channel(counted) + 1e-12)
        scores = compare_within(analysis, scores, self.scope)
        limits = Limits(self.ratio, self.budget, self.round_to or context.lanes or _LANES, self.minimum)
        if self.budget == "latency":
            wanted = choose_by_latency(analysis, self.analyze, scores, limits, context, where=f"pass {self}")
        else:
            wanted = choose(analysis, ledger, scores, limits)
        keep, refused = analysis.repair(wanted, scores)
        for group in refused:
            context.remark(group.name, "left alone: without those channels some tensor would be no full box")
        for node, reason in analysis.lossy.items():
            if not keep[analysis.ids[node.input(0)]].all():
                context.remark(node, f"lossy: {reason}", "compensate, or train, or leave out lossy=true")
        if self.budget != "latency":
            self._explain(analysis, [ledger.of(self.budget, mask) for mask in (analysis.keep_all(), keep)], limits, context)
        if not all(keep[group.classes].all() for group in analysis.groups):
            remove_channels(analysis, keep, context, reference_of(context))

    def _explain(self, analysis: Channels, costs: list[float], limits: Limits, context: Context) -> None:
        """Say what held a budget that was not met."""
        before, after = costs
        if after <= (1 - self.ratio) * before + 0.5:
            return
        holds = [
            *(["round_to"] if limits.round_to > 1 else []),
            *(["minimum"] if self.minimum > 1 else []),
        ]
        advice = f"lower {' or '.join(holds)}, " if holds else ""
        advice += "name fewer layers in keep, " if self.keep else ""
        context.remark(
            f"graph {analysis.graph.name!r}", f"only {1 - after / before:.1%} of the {self.budget} can go",
            f"{advice}{'or ' if advice else ''}see what is frozen",
        )  # fmt: skip

    def _check(self) -> None:
        for option, right in (
            ("ratio", 0 <= self.ratio < 1),
            ("round_to", self.round_to is None or self.round_to >= 1),
            ("minimum", self.minimum >= 1),
        ):
            if not right:
                raise DeburrError(
                    "E203", f"{option} is out of range", where=f"pass {self}",
                    hint="ratio is in 0 to 1 (excluded), round_to and minimum are at least 1",
                )  # fmt: skip
