"""Raising a model's opset without changing what it computes.

onnx.version_converter is right about single operators, but it forgets functions and metadata, leaves subgraphs alone, and
refuses models beyond 2 GB. So it gets one node at a time, and what it makes of the node is put in the node's place: in
subgraphs too. Where an operator's schema did not change, nothing is asked.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from deburr.ir.errors import DeburrError
from deburr.ir.graph import Graph
from deburr.ir.inference import infer
from deburr.ir.model import Model
from deburr.ir.node import Node
from deburr.ir.onnx_reader import convert
from deburr.ir.onnx_writer import to_proto
from deburr.ir.types import DType
from deburr.ir.value import Value

_LOWEST = 7  # the converter's adapters before this are full of gaps
_ALIKE = {"Hardmax": "Softmax"}  # changed like another operator, of which the converter knows
_SMALL = 1024  # elements of a constant that the converter may need to read


def raise_opset(model: Model, minimum: int) -> None:
    """Bring the default operator set to at least `minimum`; a newer model stays as it is.

    Subgraphs are raised with the model. Functions keep the opset that they import themselves, which ONNX allows.

    :raises DeburrError: E105 where `minimum` or the own opset is out of range, or naming the node that cannot be raised.
        The model is then as it was.
    """
    import onnx

    start = model.opset
    if start >= minimum or start == 0:
        return
    latest = onnx.defs.onnx_opset_version()
    if minimum > latest or start < _LOWEST:
        why = f"from {start} to {minimum}; supported is from {_LOWEST} to {latest}"
        raise DeburrError("E105", "the opset cannot be raised", why=why, hint="export the model with a newer opset")
    nodes = [node for graph in model.graph.walk() for node in graph.nodes]
    changed = [node for node in nodes if node.domain == "" and _changed(node.op, start, minimum)]
    for node, replacement in [(node, _replacement(node, start, minimum)) for node in changed]:
        if replacement is not None:
            _splice(node, replacement)
    model.import_opset("", minimum)
    model.ir_version = max(model.ir_version, 10 if minimum >= 21 else 4)  # 4-bit types came with both
    infer(model)


@cache
def _changed(op: str, start: int, target: int) -> bool:
    """Whether an operator's schema differs between two opsets."""
    import onnx

    if not onnx.defs.has(op):
        return False
    versions = {
        schema.since_version for schema in onnx.defs.get_all_schemas_with_history() if schema.name == op and not schema.domain
    }
    return any(start < version <= target for version in versions)


def _replacement(node: Node, start: int, target: int) -> Graph | None:
    """What computes the same in the target opset; None where the node may stay."""
    import onnx

    if node.subgraphs:  # If, Loop and Scan only took on more types since opset 11; their bodies are raised on their own
        if start < 11 and node.op in ("Loop", "Scan") and _signature_changed(node.op, start, target):
            raise _refusal(node, start, target, "its inputs mean something else")
        return None
    proto = to_proto(_single(node, start))
    try:
        converted = onnx.version_converter.convert_version(proto, target)
        _complete([*converted.graph.input, *converted.graph.output])
        onnx.checker.check_model(converted)
    except (RuntimeError, ValueError, onnx.checker.ValidationError) as error:
        raise _refusal(node, start, target, str(error)) from error
    replacement = convert(converted).graph
    for new in replacement.nodes:
        new.op = node.op if new.op == _ALIKE.get(node.op) else new.op
    if [value.name for value in replacement.outputs] != [value.name for value in node.outputs if value is not None]:
        raise _refusal(node, start, target, "the converter changed its outputs")
    return replacement


def _complete(ends: Iterable[Any]) -> None:
    """The checker wants every end of a graph typed, also one whose type nobody knows, such as the unused mask of Dropout, and
    with a shape. Of these ends only the names are looked at afterwards."""
    for info in ends:
        if not info.type.WhichOneof("value"):
            info.type.tensor_type.elem_type = int(DType.FLOAT)
        if info.type.HasField("tensor_type") and not info.type.tensor_type.HasField("shape"):
            info.type.tensor_type.shape.SetInParent()


def _signature_changed(op: str, start: int, target: int) -> bool:
    import onnx

    old, new = onnx.defs.get_schema(op, start), onnx.defs.get_schema(op, target)
    return [entry.name for entry in old.inputs] != [entry.name for entry in new.inputs] or set(old.attributes) != set(
        new.attributes
    )


def _refusal(node: Node, start: int, target: int, why: str) -> DeburrError:
    hint = "export the model with a newer opset"
    return DeburrError("E105", f"no way from opset {start} to {target}", where=repr(node), why=why[:300], hint=hint)


def _single(node: Node, opset: int) -> Model:
    """A model of this node alone: its inputs typed, small constants inside (the converter reads axes, pads and the like)."""
    graph = Graph("single")
    inner: dict[Value, Value] = {}
    for value in node.inputs:
        if value is not None and value not in inner:
            inner[value] = graph.add_value(value.name, value.type)
            if value.is_constant and value.constant is not None and value.constant.size <= _SMALL:
                inner[value].constant = value.constant
    graph.set_inputs([value for value in inner.values() if value.constant is None])
    outputs = [None if value is None else graph.add_value(value.name, value.type) for value in node.outputs]
    inputs = [None if value is None else inner[value] for value in node.inputs]
    graph.add_node(_ALIKE.get(node.op, node.op), inputs, outputs, node.attributes, name=node.name)
    graph.set_outputs([value for value in outputs if value is not None])
    return Model(graph, {"": opset}, ir_version=8)


def _splice(node: Node, replacement: Graph) -> None:
    """Put the nodes of `replacement` in the place of `node`; values are matched by name."""
    graph = node.owner
    known = {value.name: value for value in (*node.inputs, *node.outputs) if value is not None}
    for value in node.outputs:
        if value is not None:
            value.producer = None
    node.outputs = ()
    for value in replacement.constants:
        if value.name not in known and value.constant is not None:
            known[value.name] = graph.add_constant(value.constant, value.name)
    heir = next((new for new in replacement.nodes if new.op == node.op), None)  # names of nodes are unique
    for new in replacement.nodes:
        inputs = [None if value is None else known[value.name] for value in new.inputs]
        outputs: list[Value | None] = []
        for value in new.outputs:
            if value is not None and value.name not in known:
                known[value.name] = graph.add_value(graph.fresh_name(value.name), value.type)
            outputs.append(None if value is None else known[value.name])
        made = graph.add_node(new.op, inputs, outputs, new.attributes, name=node.name if new is heir else "", before=node)
        made.doc, made.metadata, made.extra = node.doc, dict(node.metadata), node.extra
    graph.remove(node)
