"""Facts about operators: may a node be folded, merged or dropped, and what class of computation is it.

What the ONNX schema says is taken from there; `op_kinds` adds what it cannot say. What neither knows is opaque and impure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from deburr.ir.graph import Graph
from deburr.ir.model import Function, Model
from deburr.ir.node import Node
from deburr.ir.op_kinds import DETERMINISTIC, KINDS, OPAQUE_REASONS, OpKind


@dataclass(frozen=True, slots=True)
class OpFacts:
    """What is known about one node's operator.

    `known`: the schema is known at this opset. `deterministic`: equal inputs give equal outputs. `pure`: also no effect
    beyond the outputs, so the node may be folded, merged or dropped. `reason`: why it is impure or opaque, else "".
    """

    kind: OpKind
    known: bool
    deterministic: bool
    pure: bool
    schema: Any = None  # onnx.defs.OpSchema
    reason: str = ""

    @property
    def is_elementwise(self) -> bool:
        """Output element i depends on the elements i of the (broadcast) inputs alone."""
        return self.kind in (OpKind.UNARY, OpKind.BROADCAST)

    @property
    def is_layout_agnostic(self) -> bool:
        """Commutes with every permutation of the axes of input 0, whatever the other inputs are."""
        return self.kind is OpKind.UNARY


def normal_domain(domain: str) -> str:
    """The empty domain and "ai.onnx" name the same operator set."""
    return "" if domain == "ai.onnx" else domain


def schema_of(op: str, domain: str, opset: int) -> Any:
    """The `onnx.defs.OpSchema` in force at this version of the domain, or None where onnx knows none or calls it deprecated."""
    return _schema(op, normal_domain(domain), opset)


def facts(node: Node, opset: int) -> OpFacts:
    """The facts about a node, taking every call of a model-local function as opaque.

    :param opset: version of the node's domain; for operators of the default domain, of the model's opset.
    """
    return _facts(node, lambda domain: opset, lambda body: facts(body, opset).pure)


def is_pure(node: Node, model: Model) -> bool:
    """May the node be folded, merged or dropped? A function call may if every node of the function may."""
    return facts_in(node, model).pure


def facts_in(node: Node, model: Model) -> OpFacts:
    """The facts about a node of `model`, which knows its functions and the opset of every domain."""
    return _facts_in(node, model, imports_of(owning_function(node.owner, model), model), frozenset())


def owning_function(graph: Graph, model: Model) -> Function | None:
    """The function in whose body a graph lies, or None for the main graph and its subgraphs."""
    root = graph.root
    if root is model.graph:
        return None
    return next((function for function in model.functions.values() if function.graph is root), None)


def imports_of(function: Function | None, model: Model) -> Mapping[str, int]:
    """The opset imports in force inside a function, or (None) in the main graph; the default domain is always ""."""
    imports = {**model.opset_imports, **(function.opset_imports if function is not None else {})}
    return {normal_domain(domain): version for domain, version in imports.items()}


def _facts_in(node: Node, model: Model, imports: Mapping[str, int], calling: frozenset[int]) -> OpFacts:
    function = model.functions.get((node.domain, node.op, node.overload))
    if function is not None:
        return _function_facts(function, model, calling)

    def is_pure_body(body: Node) -> bool:
        return _facts_in(body, model, imports, calling).pure

    return _facts(node, lambda domain: imports.get(domain, 0), is_pure_body)


def _function_facts(function: Function, model: Model, calling: frozenset[int]) -> OpFacts:
    if id(function) in calling:
        return OpFacts(OpKind.OPAQUE, True, False, False, reason=f"the function {function.name} calls itself")
    imports, inner = imports_of(function, model), calling | {id(function)}
    for node in function.graph.nodes:
        if not _facts_in(node, model, imports, inner).pure:
            return OpFacts(OpKind.OPAQUE, True, False, False, reason=f"the function {function.name} holds {node!r}")
    return OpFacts(OpKind.OPAQUE, True, True, True, reason="a function of the model")


def _facts(node: Node, version: Callable[[str], int], is_pure_body: Callable[[Node], bool]) -> OpFacts:
    domain = normal_domain(node.domain)
    found = _operator_facts(node.op, domain, version(domain))
    if not found.known:
        return found
    reason = ""
    if in_training_mode(node, found.schema):
        reason = "runs in training mode"
    elif any(not is_pure_body(body) for graph in node.subgraphs for body in graph.nodes):
        reason = "a subgraph holds an impure node"
    return replace(found, deterministic=False, pure=False, reason=reason) if reason else found


@lru_cache(maxsize=4096)
def _operator_facts(op: str, domain: str, opset: int) -> OpFacts:
    """Facts that no attribute changes; subgraphs and training mode are judged for each node."""
    schema = _schema(op, domain, opset)
    if schema is None:
        reason = f"{domain or 'ai.onnx'} {opset} has no operator {op} that we know"
        return OpFacts(OpKind.OPAQUE, False, False, False, reason=reason)
    kind = KINDS.get(op, OpKind.OPAQUE)
    deterministic = not _draws_random_numbers(schema, kind)
    pure = deterministic and domain != "ai.onnx.preview.training"
    reason = "" if deterministic else "draws random numbers"
    if kind is OpKind.OPAQUE:
        reason = OPAQUE_REASONS.get(op, "not in our table of operators")
    return OpFacts(kind, True, deterministic, pure, schema, reason)


def _draws_random_numbers(schema: Any, kind: OpKind) -> bool:
    """The schema's verdict, except where that only stands for what subgraphs, a training mode or a function body decide."""
    judged_by_node = kind is OpKind.CONTROL_FLOW or schema.name == "Dropout" or schema.name in DETERMINISTIC
    return not judged_by_node and schema.node_determinism != type(schema).NodeDeterminism.Deterministic


def in_training_mode(node: Node, schema: Any) -> bool:
    """Dropout that may drop, BatchNormalization that takes its statistics from the batch, as any opset asks for it.

    Before opset 7 both train unless `is_test` is 1. Since 12 Dropout trains where its input `training_mode` is true, since 14
    BatchNormalization where its attribute is 1; before that it trained where it gave more than one output.
    """
    if schema.domain or node.op not in ("Dropout", "BatchNormalization"):
        return False
    if "is_test" in schema.attributes:
        return bool(node.get("is_test", 0) != 1)
    if node.op == "BatchNormalization":
        return node.get("training_mode", 0) != 0 or sum(value is not None for value in node.outputs) > 1
    mode = node.optional_input(2)
    return mode is not None and (mode.array is None or bool(mode.array.any()))


@lru_cache(maxsize=4096)
def _schema(op: str, domain: str, opset: int) -> Any:
    import onnx.defs

    try:
        schema = onnx.defs.get_schema(op, opset, domain)
    except onnx.defs.SchemaError:
        return None
    return None if schema.deprecated else schema
