"""Runs a pipeline over a model: short, because everything that watches is an instrument."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType

from deburr.ir.duplicate import duplicate
from deburr.ir.errors import DeburrError
from deburr.ir.graph import Graph
from deburr.ir.model import Model
from deburr.ir.node import Node
from deburr.passes.core import Context, Pass
from deburr.passes.instruments import Instrument, Step
from deburr.passes.pipeline import Fixpoint, Item, Pipeline, Recipe, Repeat
from deburr.passes.recover.extra import require_torch


def run(pipeline: Pipeline, context: Context, instruments: Sequence[Instrument] = ()) -> None:
    """Run the passes on `context.model`, in place.

    :raises DeburrError: before anything runs, E206 if a pass needs data and there is none, E902 if one needs torch and it is
        not installed; E204 if a pass fails; E205 from `VerifyEach`; and what passes raise themselves. After an error the model
        may be half edited.

    A pass that `keeps_best` survives one KeyboardInterrupt: it ends with its best model, `context.interrupted` names it, and
    the pipeline goes on, because what follows (insert-qdq, …) may be what makes the model of use. A second one goes up.
    """
    _check_needs(pipeline, context)
    if context.original is None and any(pass_.needs_original for pass_ in pipeline.passes):
        context.original = duplicate(context.model)
    for instrument in instruments:
        instrument.before_pipeline(pipeline, context)
    _Runner(context, instruments).run(pipeline, ())
    for instrument in reversed(instruments):
        instrument.after_pipeline(pipeline, context)


def _check_needs(pipeline: Pipeline, context: Context) -> None:
    for pass_ in pipeline.passes:
        if pass_.needs_torch:
            require_torch(f"pass {pass_.name}")
        if pass_.needs_data and context.data is None:
            raise DeburrError(
                "E206", f"the pass {pass_.name} needs calibration data", where=f"pipeline {pipeline}",
                why="none was given", hint="give samples with --data FILE.npz",
            )  # fmt: skip


class _Runner:
    def __init__(self, context: Context, instruments: Sequence[Instrument]) -> None:
        self._context, self._instruments, self._count = context, instruments, 0

    def run(self, pipeline: Pipeline, nest: tuple[str, ...]) -> bool:
        """True if something changed."""
        changed = False
        for item in pipeline.items:
            changed |= self._item(item, nest)
        return changed

    def _item(self, item: Item, nest: tuple[str, ...]) -> bool:
        if isinstance(item, Repeat):
            return self._repeat(item, nest)
        if isinstance(item, Fixpoint):
            return self._fixpoint(item, nest)
        if isinstance(item, Recipe):
            return self.run(item.body, (*nest, item.name))
        return self._step(item, nest)

    def _repeat(self, item: Repeat, nest: tuple[str, ...]) -> bool:
        changed = False
        for number in range(item.count):
            changed |= self.run(item.body, (*nest, f"repeat {number + 1}/{item.count}"))
        return changed

    def _fixpoint(self, item: Fixpoint, nest: tuple[str, ...]) -> bool:
        for number in range(item.limit):
            if not self.run(item.body, (*nest, f"fixpoint {number + 1}")):
                return number > 0
        self._context.running = None
        self._context.remark(str(item), f"it still changes something after {item.limit} rounds", "give a higher limit")
        return True

    def _step(self, pass_: Pass, nest: tuple[str, ...]) -> bool:
        self._count += 1
        step, context = Step(self._count, pass_, nest), self._context
        wanted = [instrument.should_run(step, context) for instrument in self._instruments]
        if not all(wanted):
            return False
        try:
            for instrument in self._instruments:
                instrument.before_pass(step, context)
            changed = self._run_pass(step)
            for instrument in reversed(self._instruments):
                instrument.after_pass(step, context, changed)
        except DeburrError as error:
            for instrument in reversed(self._instruments):
                instrument.failed(step, context, error)
            raise
        return changed

    def _run_pass(self, step: Step) -> bool:
        context, before = self._context, self._context.interrupted
        context.before_part = self._before_part
        changed = run_pass(step.pass_, context)
        if context.interrupted is not before:
            for instrument in self._instruments:
                instrument.interrupted(step, context)
        return changed

    def _before_part(self, part: Pass, context: Context) -> None:
        for instrument in self._instruments:
            instrument.before_part(part, context)


def run_pass(pass_: Pass, context: Context) -> bool:
    """Run one pass on every graph it is meant for; afterwards every value has its type again. True if something changed.

    The first Ctrl-C during a pass that keeps its best ends that pass early, with a remark; any other goes up.

    :raises DeburrError: E204 for an exception that the pass did not mean to raise.
    """
    from deburr.ir.inference import infer

    model = context.model
    before = model.revision
    _raise_opset(model, pass_)
    context.running = pass_
    try:
        for graph in _graphs(model, pass_):
            _run_on(graph, pass_, context)
    except KeyboardInterrupt:
        if not pass_.keeps_best or context.interrupted is not None:
            raise
        context.interrupted = pass_
        changed = context.model is not model or model.revision != before
        reached = "with the best model so far" if changed else "before it had changed anything"
        context.remark("", f"interrupted: it ended early, {reached}")
    finally:
        context.running = None
    changed = context.model is not model or model.revision != before
    if changed:
        infer(context.model)
    return changed


def _raise_opset(model: Model, pass_: Pass) -> None:
    if model.opset < pass_.minimum_opset:
        from deburr.ir.opset import raise_opset

        raise_opset(model, pass_.minimum_opset)


def _graphs(model: Model, pass_: Pass) -> Iterator[Graph]:
    """Innermost first: a pass sees an outer graph when the inner ones are done. A graph that went away is left out."""
    if pass_.main_graph_only:
        yield model.graph
        return
    for root in [*(function.graph for function in model.functions.values()), model.graph]:
        for graph in reversed(list(root.walk())):
            if _is_alive(graph, model):
                yield graph


def _is_alive(graph: Graph, model: Model) -> bool:
    while graph.parent is not None:
        if graph.parent.graph is None or graph not in graph.parent.subgraphs:
            return False
        graph = graph.parent.graph
    return graph is model.graph or any(graph is function.graph for function in model.functions.values())


def _run_on(graph: Graph, pass_: Pass, context: Context) -> None:
    try:
        pass_.run(graph, context)
    except DeburrError:
        raise
    except Exception as error:
        node = _node_at_fault(error.__traceback__)
        place = f"graph {graph.name!r}" + (f", node {node!r}" if node is not None else "")
        raise DeburrError(
            "E204", "a pass failed", where=f"pass {pass_}, {place}", why=f"{type(error).__name__}: {error}",
            hint="this is a defect of the pass: please report it",
        ) from error  # fmt: skip


def _node_at_fault(traceback: TracebackType | None) -> Node | None:
    """The node that the pass looked at: what the innermost frame with a variable called `node` holds."""
    found = None
    while traceback is not None:
        candidate = traceback.tb_frame.f_locals.get("node")
        found = candidate if isinstance(candidate, Node) else found
        traceback = traceback.tb_next
    return found
