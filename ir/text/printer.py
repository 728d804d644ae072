"""A model as text. One node is one line, unless it holds subgraphs, which are indented below it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from deburr.ir.attributes import Attribute, AttributeKind, AttributeReference
from deburr.ir.constants import Constant
from deburr.ir.graph import Graph
from deburr.ir.model import Function, Model
from deburr.ir.node import Node
from deburr.ir.text.elements import payload
from deburr.ir.text.names import float32, operator_name, quoted, string, value_name, word
from deburr.ir.types import Dim, OpaqueType, QParams, TensorType, ValueType
from deburr.ir.value import Value

INDENT = "  "


def print_model(model: Model) -> str:
    """The whole model, except where it came from (`Model.folder`)."""
    parts = ["\n".join(_header(model)), _graph(model.graph, "")]
    parts += [_function(function) for function in model.functions.values()]
    return "\n\n".join(parts) + "\n"


def print_graph(graph: Graph) -> str:
    """A graph and all inside it."""
    return _graph(graph, "") + "\n"


def print_node(node: Node) -> str:
    """A node on one line, its subgraphs left out."""
    return _node(node, None)


def print_type(type: ValueType | None) -> str:
    if type is None:
        return "?"
    if isinstance(type, OpaqueType):
        return f"opaque {quoted(type.label)} {string(type.proto)}"
    dims = "..." if type.shape is None else ", ".join(_dim(dim) for dim in type.shape)
    return f"{type.dtype}[{dims}]"


def _header(model: Model) -> Iterator[str]:
    yield f"ir_version {model.ir_version}"
    if any(model.producer):
        yield f"producer {quoted(model.producer[0])} {quoted(model.producer[1])}"
    if model.domain:
        yield f"domain {quoted(model.domain)}"
    if model.version:
        yield f"version {model.version}"
    yield from _opsets(model.opset_imports)
    if notes := _notes(model.doc, model.metadata, extra=model.extra):
        yield notes.strip()


def _opsets(imports: Mapping[str, int]) -> Iterator[str]:
    for domain, version in imports.items():
        yield f"opset {quoted(domain)} {version}"


def _function(function: Function) -> str:
    name = operator_name(function.name, function.domain, function.overload)
    lines = [f"function {name}{_notes(function.doc, function.metadata)} {{"]
    lines += [INDENT + line for line in _opsets(function.opset_imports)]
    for key, default in function.attributes.items():
        lines.append(f"{INDENT}attribute {word(key)}" + ("" if default is None else f"={_attribute(default, INDENT)}"))
    lines.append(INDENT + _graph(function.graph, INDENT))
    return "\n".join([*lines, "}"])


def _graph(graph: Graph, indent: str) -> str:
    inner = indent + INDENT
    lines = [f"graph {word(graph.name)}{_notes(graph.doc, graph.metadata)} {{"]
    lines += [inner + statement for statement in _values(graph)]
    lines += [inner + _node(node, inner) for node in graph.nodes]
    for value, notes in graph.annotations.items():
        pairs = ", ".join(f"{quoted(key)}: {value_name(noted.name)}" for key, noted in notes.items())
        lines.append(f"{inner}annotation {value_name(value.name)} {{{pairs}}}")
    lines.append(f"{inner}return {', '.join(value_name(value.name) for value in graph.outputs)}".rstrip())
    return "\n".join([*lines, indent + "}"])


def _values(graph: Graph) -> Iterator[str]:
    """Inputs, constants, and values that nothing defines (no valid graph has those)."""
    inputs = {id(value) for value in graph.inputs}
    for value in graph.inputs:
        yield f"input {_declaration(value)}" + ("" if value.constant is None else f" = {_tensor(value.constant)}")
    for value in graph.values:
        if value.producer is not None or id(value) in inputs:
            continue
        if value.constant is None:
            yield f"value {_declaration(value)}"
        else:
            own = TensorType(value.constant.dtype, value.constant.shape)
            yield f"const {_declaration(value, own)} = {_tensor(value.constant)}"


def _node(node: Node, indent: str | None) -> str:
    """:param indent: of the line that the node stands on, or None to leave subgraphs out."""
    outputs = ", ".join("_" if value is None else _declaration(value) for value in node.outputs)
    inputs = ", ".join("_" if value is None else value_name(value.name) for value in node.inputs)
    text = f"{outputs or '()'} = {operator_name(node.op, node.domain, node.overload)}({inputs})"
    if node.attributes:
        text += f" {{{', '.join(f'{word(key)}={_attribute(item, indent)}' for key, item in node.attributes.items())}}}"
    if node.name:
        text += f" {quoted(node.name)}"
    return text + _notes(node.doc, node.metadata, extra=node.extra)


def _declaration(value: Value, implied: TensorType | None = None) -> str:
    """Name, type and what else is known. A constant's type is left out where its elements imply it."""
    text = value_name(value.name)
    if value.type != implied:
        text += f": {print_type(value.type)}"
    if value.qparams is not None:
        text += f" {_qparams(value.qparams)}"
    return text + _notes(value.doc, value.metadata, declared=value.declared)


def _notes(doc: str, metadata: Mapping[str, str], **proto: bytes) -> str:
    text = f" doc {quoted(doc)}" if doc else ""
    if metadata:
        text += f" metadata {{{', '.join(f'{quoted(key)}: {quoted(item)}' for key, item in metadata.items())}}}"
    return text + "".join(f" {key} {string(data)}" for key, data in proto.items() if data)


def _dim(dim: Dim) -> str:
    return "?" if dim is None else str(dim) if isinstance(dim, int) else word(dim)


def _qparams(qparams: QParams) -> str:
    form = "" if qparams.bits is None else f", bits={qparams.bits}"
    form += "" if qparams.axis is None else f", axis={qparams.axis}"
    if qparams.block_size is not None:
        form += f", block_size={qparams.block_size}, shape={list(qparams.scale.shape)}"
    scale, zero_point = payload(Constant.of(qparams.scale)), payload(Constant.of(qparams.zero_point))
    return f"quant<{qparams.dtype}{form}, scale={scale}, zero_point={zero_point}>"


def _tensor(constant: Constant) -> str:
    return f"{constant.dtype}{list(constant.shape)} {payload(constant)}"


def _attribute(attribute: Attribute, indent: str | None) -> str:
    kind, value = attribute.kind, attribute.value
    if isinstance(value, AttributeReference):
        text = f"{kind.name.lower()} @{word(value.name)}"
    elif kind in _SINGULAR:
        items = ", ".join(_scalar(_SINGULAR[kind], item, indent) for item in value)
        text = f"[{items}]" if items else f"{kind.name.lower()} []"
    else:
        text = _scalar(kind, value, indent)
    return text + _notes(attribute.doc, {})


def _scalar(kind: AttributeKind, value: Any, indent: str | None) -> str:
    if kind is AttributeKind.INT:
        return str(int(value))
    if kind is AttributeKind.FLOAT:
        return float32(value)
    if kind is AttributeKind.STRING:
        return string(value)
    if kind is AttributeKind.TENSOR:
        return _tensor(value)
    if kind is AttributeKind.GRAPH:
        return f"graph {word(value.name)} {{…}}" if indent is None else _graph(value, indent)
    return f"{kind.name.lower()} {string(value)}"


_SINGULAR = {
    AttributeKind.INTS: AttributeKind.INT,
    AttributeKind.FLOATS: AttributeKind.FLOAT,
    AttributeKind.STRINGS: AttributeKind.STRING,
    AttributeKind.TENSORS: AttributeKind.TENSOR,
    AttributeKind.GRAPHS: AttributeKind.GRAPH,
}
