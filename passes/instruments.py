"""What watches a pipeline run, apart from the manager's loop: verify-each, timing, statistics, printing, diff, bisection."""

from __future__ import annotations

import difflib
import sys
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TextIO

from deburr.ir.errors import DeburrError
from deburr.ir.model import Model
from deburr.passes.core import Context, Pass
from deburr.passes.pipeline import Pipeline


@dataclass(frozen=True, slots=True)
class Step:
    """One run of one pass. `number` counts from 1 over the whole run; `nest` names the repetitions and recipes around it."""

    number: int
    pass_: Pass
    nest: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.number} {self.pass_}"


class Instrument:
    """Hooks around a run. The default of each does nothing."""

    def before_pipeline(self, pipeline: Pipeline, context: Context) -> None: ...

    def after_pipeline(self, pipeline: Pipeline, context: Context) -> None: ...

    def should_run(self, step: Step, context: Context) -> bool:
        """False leaves the step out."""
        return True

    def before_pass(self, step: Step, context: Context) -> None: ...

    def before_part(self, part: Pass, context: Context) -> None:
        """A composite pass is about to run one of its parts, maybe on a copy that it tries something on."""

    def after_pass(self, step: Step, context: Context, changed: bool) -> None: ...

    def interrupted(self, step: Step, context: Context) -> None:
        """The user ended `step` early; it left its best model, and the pipeline goes on."""

    def failed(self, step: Step, context: Context, error: DeburrError) -> None:
        """`step` raised `error`, or left the model invalid; no other hook is called after this one."""


@dataclass
class VerifyEach(Instrument):
    """Verify the model after every pass that changed it, so that a broken rule names the pass that broke it."""

    level: str = "imported"

    def after_pass(self, step: Step, context: Context, changed: bool) -> None:
        """:raises DeburrError: E205."""
        from deburr.ir.verify import verify

        if not changed:
            return
        try:
            verify(context.model, self.level)
        except DeburrError as error:
            raise DeburrError(
                "E205", "the model is invalid after a pass", where=f"pass {step}",
                why=f"{error.what}, {error.where}: {error.why}", hint="this is a defect of the pass: please report it",
            ) from error  # fmt: skip


@dataclass
class Timing(Instrument):
    """Seconds per step, as a tree."""

    stream: TextIO = field(default_factory=lambda: sys.stderr)
    steps: list[tuple[Step, float]] = field(default_factory=list)
    _started: float = 0.0

    def before_pass(self, step: Step, context: Context) -> None:
        self._started = time.perf_counter()

    def after_pass(self, step: Step, context: Context, changed: bool) -> None:
        self.steps.append((step, time.perf_counter() - self._started))

    def after_pipeline(self, pipeline: Pipeline, context: Context) -> None:
        self.stream.write(self.report() + "\n")

    def report(self) -> str:
        """A line per step under the repetitions and recipes that it belongs to; each of these shows its sum."""
        totals: dict[tuple[str, ...], float] = {}
        for step, seconds in self.steps:
            for depth in range(len(step.nest) + 1):
                totals[step.nest[:depth]] = totals.get(step.nest[:depth], 0.0) + seconds
        lines = [_line(totals.get((), 0.0), 0, "pipeline")]
        shown: tuple[str, ...] = ()
        for step, seconds in self.steps:
            new = range(_common(shown, step.nest), len(step.nest))
            lines += [_line(totals[step.nest[: depth + 1]], depth + 1, step.nest[depth]) for depth in new]
            lines.append(_line(seconds, len(step.nest) + 1, str(step.pass_)))
            shown = step.nest
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class StepStatistics:
    """What one step did: edits is how far the model's revision moved."""

    step: Step
    edits: int
    nodes_before: int
    nodes_after: int
    remarks: int


@dataclass
class Statistics(Instrument):
    """Edits, nodes and remarks per step."""

    stream: TextIO | None = field(default_factory=lambda: sys.stderr)
    steps: list[StepStatistics] = field(default_factory=list)
    _before: tuple[int, int, int] = (0, 0, 0)

    def before_pass(self, step: Step, context: Context) -> None:
        self._before = (context.model.revision, count_nodes(context.model), len(context.remarks))

    def after_pass(self, step: Step, context: Context, changed: bool) -> None:
        revision, nodes, remarks = self._before
        edits, now = context.model.revision - revision, count_nodes(context.model)
        self.steps.append(StepStatistics(step, edits, nodes, now, len(context.remarks) - remarks))

    def after_pipeline(self, pipeline: Pipeline, context: Context) -> None:
        if self.stream is not None:
            self.stream.write(self.report() + "\n")

    def report(self) -> str:
        rows = [f"{one.edits:7d} {one.nodes_before:7d} {one.nodes_after:7d} {one.remarks:7d}  {one.step}" for one in self.steps]
        return "\n".join([f"{'edits':>7} {'nodes':>7} {'after':>7} {'remarks':>7}  step", *rows])


@dataclass
class SayInterrupted(Instrument):
    """Answer a Ctrl-C at once: the rest of the pipeline may take its time."""

    stream: TextIO = field(default_factory=lambda: sys.stderr)

    def interrupted(self, step: Step, context: Context) -> None:
        self.stream.write(
            f"interrupted: {step.pass_.name} ends with what it has reached, and the rest of the pipeline goes on "
            "(Ctrl-C again gives up)\n"
        )


@dataclass
class PrintModel(Instrument):
    """Print the model's text before and after passes: those named, or all of them for `*`."""

    before: Collection[str] = ()
    after: Collection[str] = ()
    only_changed: bool = False
    stream: TextIO = field(default_factory=lambda: sys.stderr)

    def before_pass(self, step: Step, context: Context) -> None:
        if _named(step, self.before):
            self._print("before", step, context.model)

    def after_pass(self, step: Step, context: Context, changed: bool) -> None:
        if _named(step, self.after) and (changed or not self.only_changed):
            self._print("after", step, context.model)

    def _print(self, when: str, step: Step, model: Model) -> None:
        from deburr.ir.text import print_model

        self.stream.write(f"// {when} {step}\n{print_model(model).rstrip()}\n")


@dataclass
class Diff(Instrument):
    """What each pass changed, as a unified diff of the model's text."""

    names: Collection[str] = ("*",)
    stream: TextIO = field(default_factory=lambda: sys.stderr)
    _before: str = ""

    def before_pass(self, step: Step, context: Context) -> None:
        from deburr.ir.text import print_model

        self._before = print_model(context.model) if _named(step, self.names) else ""

    def after_pass(self, step: Step, context: Context, changed: bool) -> None:
        from deburr.ir.text import print_model

        if not changed or not _named(step, self.names):
            return
        before, after = self._before.splitlines(), print_model(context.model).splitlines()
        lines = difflib.unified_diff(before, after, f"before {step}", f"after {step}", lineterm="")
        self.stream.write("\n".join(lines) + "\n")


@dataclass
class BisectLimit(Instrument):
    """Run the first `limit` steps and leave the rest out, to find by halving the step that breaks something."""

    limit: int
    stream: TextIO = field(default_factory=lambda: sys.stderr)

    def should_run(self, step: Step, context: Context) -> bool:
        runs = step.number <= self.limit
        self.stream.write(f"bisect: {'running' if runs else 'leaving out'} step {step}\n")
        return runs


def count_nodes(model: Model) -> int:
    """Nodes of all graphs."""
    return sum(len(graph) for graph in model.graphs)


def _named(step: Step, names: Collection[str]) -> bool:
    return "*" in names or step.pass_.name in names


def _line(seconds: float, depth: int, label: str) -> str:
    return f"{seconds:9.3f} s  {'  ' * depth}{label}"


def _common(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    """How many first items are the same."""
    count = 0
    while count < min(len(one), len(other)) and one[count] == other[count]:
        count += 1
    return count
