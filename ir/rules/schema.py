"""Rules from the ONNX schema: operators exist at their opset, and get the inputs, outputs and attributes they take."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from deburr.ir.attributes import AttributeKind
from deburr.ir.model import Function
from deburr.ir.node import Node
from deburr.ir.ops import normal_domain, schema_of
from deburr.ir.rules.core import Rule, Scope, Violation
from deburr.ir.types import DType, TensorType
from deburr.ir.value import Value

STANDARD_DOMAINS = ("", "ai.onnx.ml", "ai.onnx.preview", "ai.onnx.preview.training")


@dataclass(frozen=True, slots=True)
class Parameter:
    """A formal input or output: name, whether it may be left out, the element types it takes, the type variable."""

    name: str
    is_optional: bool
    is_variadic: bool
    types: frozenset[str]
    variable: str  # empty where the parts of a variadic parameter need not agree


@dataclass(frozen=True, slots=True)
class Signature:
    """What an operator takes and gives, copied out of its schema, because every look into a schema is slow."""

    inputs: tuple[Parameter, ...]
    outputs: tuple[Parameter, ...]
    counts: tuple[int, int, int, int]  # least and most inputs, least and most outputs
    attributes: dict[str, tuple[AttributeKind, bool]]  # kind, required


@lru_cache(maxsize=4096)
def signature(op: str, domain: str, opset: int) -> Signature | None:
    """The signature in force at this version of the domain, None where onnx knows none."""
    schema = schema_of(op, domain, opset)
    if schema is None:
        return None
    attributes = {name: (AttributeKind(int(item.type.value)), item.required) for name, item in schema.attributes.items()}
    counts = (schema.min_input, schema.max_input, schema.min_output, schema.max_output)
    return Signature(_parameters(schema.inputs), _parameters(schema.outputs), counts, attributes)


def _parameters(formal: Sequence[Any]) -> tuple[Parameter, ...]:
    found = []
    for item in formal:
        variadic = item.option == type(item.option).Variadic
        optional = variadic or item.option == type(item.option).Optional
        found.append(
            Parameter(item.name, optional, variadic, frozenset(item.types), item.type_str if item.is_homogeneous else "")
        )
    return tuple(found)


def _signature_of(node: Node, scope: Scope) -> Signature | None:
    if scope.model.functions and _function_of(node, scope) is not None:
        return None
    domain = normal_domain(node.domain)
    return signature(node.op, domain, scope.imports.get(domain, 0)) if domain in STANDARD_DOMAINS else None


def _function_of(node: Node, scope: Scope) -> Function | None:
    return scope.model.functions.get((node.domain, node.op, node.overload))


def _imported(scope: Scope) -> Iterator[Violation]:
    for node in scope.nodes:
        if normal_domain(node.domain) not in scope.imports:
            yield Violation(f"the model imports no version of the domain {node.domain!r}", node)


def _exists(scope: Scope) -> Iterator[Violation]:
    for node in scope.nodes:
        domain = normal_domain(node.domain)
        version = scope.imports.get(domain)
        if domain not in STANDARD_DOMAINS or version is None or _function_of(node, scope) is not None:
            continue
        if signature(node.op, domain, version) is None:
            yield Violation(f"{domain or 'ai.onnx'} {version} has no operator {node.op}", node)


def _per_node(check: Callable[[Node, Signature], Iterator[Violation]]) -> Callable[[Scope], Iterator[Violation]]:
    def check_all(scope: Scope) -> Iterator[Violation]:
        for node in scope.nodes:
            found = _signature_of(node, scope)
            if found is not None:
                yield from check(node, found)

    return check_all


def _inputs(node: Node, found: Signature) -> Iterator[Violation]:
    least, most = found.counts[:2]
    if not least <= len(node._inputs) <= most:
        yield Violation(f"it has {len(node._inputs)} inputs, {node.op} takes {_span(least, most)}", node)
    for parameter, value in zip(found.inputs, node._inputs, strict=False):
        if value is None and not parameter.is_optional:
            yield Violation(f"its input {parameter.name!r} is left out", node)


def _outputs(node: Node, found: Signature) -> Iterator[Violation]:
    least, most = found.counts[2:]
    if not least <= len(node.outputs) <= most:
        yield Violation(f"it has {len(node.outputs)} outputs, {node.op} gives {_span(least, most)}", node)


def _span(least: int, most: int) -> str:
    if least == most:
        return str(least)
    return f"at least {least}" if most > 1 << 20 else f"{least} to {most}"


def _required(node: Node, found: Signature) -> Iterator[Violation]:
    for name, (_, is_required) in found.attributes.items():
        if is_required and name not in node._attributes:
            yield Violation(f"its attribute {name!r} is missing", node)


def _attribute_kinds(node: Node, found: Signature) -> Iterator[Violation]:
    for name, attribute in node._attributes.items():
        known = found.attributes.get(name)
        if known is None and not name.startswith("__"):
            yield Violation(f"{node.op} has no attribute {name!r} at this opset", node)
        elif known is not None and attribute.kind is not known[0]:
            kinds = known[0].name.lower(), attribute.kind.name.lower()
            yield Violation(f"its attribute {name!r} should be {kinds[0]}, and is {kinds[1]}", node)


def _element_types(node: Node, found: Signature) -> Iterator[Violation]:
    bound: dict[str, DType] = {}
    for formal, values in ((found.inputs, node._inputs), (found.outputs, node.outputs)):
        for index, value in enumerate(values):
            parameter = formal[min(index, len(formal) - 1)] if formal else None
            if parameter is None or value is None or not isinstance(value.type, TensorType):
                continue
            if value.type.dtype is not DType.UNDEFINED:
                yield from _element_type(node, value, value.type.dtype, parameter, bound)


def _element_type(node: Node, value: Value, dtype: DType, parameter: Parameter, bound: dict[str, DType]) -> Iterator[Violation]:
    if f"tensor({dtype})" not in parameter.types:
        yield Violation(f"{node.op} takes or gives no {dtype} as {parameter.name!r}", node, value)
    elif parameter.variable and bound.setdefault(parameter.variable, dtype) is not dtype:
        yield Violation(
            f"it is {dtype}, where the types of the node's other values ask for {bound[parameter.variable]}", node, value
        )


def _calls(scope: Scope) -> Iterator[Violation]:
    for node in scope.nodes if scope.model.functions else ():
        function = _function_of(node, scope)
        if function is None:
            continue
        for kind, given, formal in (
            ("inputs", len(node._inputs), len(function.graph.inputs)),
            ("outputs", len(node.outputs), len(function.graph.outputs)),
        ):
            if given > formal:
                yield Violation(f"it has {given} {kind}, the function has {formal}", node)
        for name, default in function.attributes.items():
            if default is not None and name in node._attributes and node._attributes[name].kind is not default.kind:
                yield Violation(f"its attribute {name!r} should be {default.kind.name.lower()}", node)


def _no_recursion(scope: Scope) -> Iterator[Violation]:
    """Depth-first over the calls, from the main graph's scope only."""
    if scope.graph is not scope.model.graph:
        return
    done: set[int] = set()
    for function in scope.model.functions.values():
        if _calls_itself(function, scope, (), done):
            yield Violation(f"the function {function.name!r} calls itself, or one that does")


def _calls_itself(function: Function, scope: Scope, calling: tuple[int, ...], done: set[int]) -> bool:
    if id(function) in calling:
        return True
    if id(function) in done:
        return False
    done.add(id(function))
    nodes = (node for graph in function.graph.walk() for node in graph.nodes)
    called = {id(item): item for node in nodes if (item := _function_of(node, scope)) is not None}
    return any(_calls_itself(item, scope, (*calling, id(function)), done) for item in called.values())


SCHEMA = (
    Rule("V101", "the model imports an opset of every domain that it uses", _imported),
    Rule("V102", "an operator of a standard domain exists at the opset that the model imports", _exists),
    Rule("V103", "a node has the inputs that its operator takes", _per_node(_inputs)),
    Rule("V104", "a node has the outputs that its operator gives", _per_node(_outputs)),
    Rule("V105", "a node has every attribute that its operator requires", _per_node(_required)),
    Rule("V106", "a node has only attributes that its operator knows, each of the right kind", _per_node(_attribute_kinds)),
    Rule(
        "V107", "the element types of a node's inputs and outputs are those that its operator allows", _per_node(_element_types)
    ),
    Rule("V108", "the call of a function fits the function", _calls),
    Rule("V109", "no function calls itself", _no_recursion),
)
