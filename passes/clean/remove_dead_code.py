"""Drop what no output needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from deburr.ir.graph import Graph
from deburr.ir.model import Function, Model
from deburr.ir.ops import facts_in
from deburr.passes.core import Context, Pass


@dataclass(frozen=True, slots=True)
class RemoveDeadCode(Pass):
    """Drop pure nodes, constants and functions that nothing uses; inputs and outputs of the model stay."""

    name: ClassVar[str] = "remove-dead-code"

    def run(self, graph: Graph, context: Context) -> None:
        for node in reversed(list(graph.nodes)):
            if any(value is not None and (value.uses or value.is_output) for value in node.outputs):
                continue
            facts = facts_in(node, context.model)
            if facts.pure:
                graph.remove(node)
            else:
                context.remark(node, f"nothing uses it, but it may have an effect: {facts.reason}")
        annotated = {value for constants in graph.annotations.values() for value in constants.values()}
        for value in graph.constants:
            if not value.uses and not value.is_output and value not in annotated:
                graph.remove_value(value)
        if graph is context.model.graph:  # the manager visits it last, when the functions are clean
            _remove_functions(context.model)


def _remove_functions(model: Model) -> None:
    called: set[int] = set()
    todo = _calls(model.graph, model)
    while todo:
        function = todo.pop()
        if id(function) not in called:
            called.add(id(function))
            todo += _calls(function.graph, model)
    for function in list(model.functions.values()):
        if id(function) not in called:
            model.remove_function(function)


def _calls(graph: Graph, model: Model) -> list[Function]:
    keys = [(node.domain, node.op, node.overload) for inner in graph.walk() for node in inner.nodes]
    return [model.functions[key] for key in keys if key in model.functions]
