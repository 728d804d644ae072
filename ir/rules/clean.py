"""Rules for a graph that went through the clean-up passes: nothing in it is there in vain."""

from __future__ import annotations

from collections.abc import Iterator

from deburr.ir.attributes import AttributeReference
from deburr.ir.node import Node
from deburr.ir.ops import is_pure, normal_domain
from deburr.ir.rules.core import Rule, Scope, Violation
from deburr.ir.value import Value


def _no_constant_nodes(scope: Scope) -> Iterator[Violation]:
    for node in scope.nodes:
        if node.op != "Constant" or normal_domain(node.domain) or any(value in scope.outputs for value in node.outputs):
            continue
        if not any(isinstance(attribute.value, AttributeReference) for attribute in node.attributes.values()):
            yield Violation("a constant that no caller decides is an initializer", node)


def _no_identities(scope: Scope) -> Iterator[Violation]:
    for node in scope.nodes:
        if node.op not in ("Identity", "Dropout") or normal_domain(node.domain) or not is_pure(node, scope.model):
            continue
        if node.op == "Dropout" and any(_is_needed(value, scope) for value in node.outputs[1:]):
            continue
        if _is_replaceable(node.input(0), node.output(), scope):
            yield Violation("its readers could read its input", node)


def _is_replaceable(source: Value, result: Value, scope: Scope) -> bool:
    """Graph outputs keep their names, and each needs a value of its own that a node produces."""
    if result.qparams is not None and result.qparams != source.qparams:
        return False
    if result not in scope.outputs:
        return True
    return source.graph is scope.graph and source.producer is not None and source not in scope.outputs


def _is_needed(value: Value | None, scope: Scope) -> bool:
    return value is not None and (bool(value._uses) or value in scope.outputs)


def _no_dead_nodes(scope: Scope) -> Iterator[Violation]:
    for node in scope.nodes:
        if not any(_is_needed(value, scope) for value in node.outputs) and _is_droppable(node, scope):
            yield Violation("nothing reads its outputs", node)


def _is_droppable(node: Node, scope: Scope) -> bool:
    return bool(node.outputs) and is_pure(node, scope.model)


def _no_dead_constants(scope: Scope) -> Iterator[Violation]:
    annotated = {noted for notes in scope.graph.annotations.values() for noted in notes.values()}
    for value in scope.graph.values:
        unused = value.constant is not None and not _is_needed(value, scope)
        if unused and value not in scope.inputs and value not in annotated:
            yield Violation("nothing reads it", value=value)


CLEAN = (
    Rule("V201", "no Constant nodes are left", _no_constant_nodes),
    Rule("V202", "no Identity, and no Dropout in inference, is left that could be bypassed", _no_identities),
    Rule("V203", "every pure node has a reader", _no_dead_nodes),
    Rule("V204", "every constant has a reader", _no_dead_constants),
)
