"""Attributes between ONNX protos, onnx-graphsurgeon and the IR.

Graphsurgeon carries numbers, strings and subgraphs. It copies tensors, gives references made-up tensors, skips lists of
tensors and graphs, sparse tensors and types, crashes on strings that are not UTF-8, and cannot write an empty list. Those go
beside it: a list of graphs as one attribute per graph, the others directly between the protos.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from deburr.ir import onnx_tensors
from deburr.ir.attributes import Attribute, AttributeKind, AttributeReference
from deburr.ir.constants import Constant
from deburr.ir.graph import Graph

_PLAIN = (AttributeKind.FLOAT, AttributeKind.INT, AttributeKind.FLOATS, AttributeKind.INTS)
_STRINGS = (AttributeKind.STRING, AttributeKind.STRINGS)
Subgraph = Callable[[Any, Any], Graph]  # (graphsurgeon's graph, GraphProto) -> Graph


def is_carried(proto: Any) -> bool:
    """Whether graphsurgeon carries this AttributeProto in and out as it is"""
    kind = AttributeKind(proto.type)
    if proto.ref_attr_name:
        return False
    if kind in _STRINGS:
        return all(_is_text(item) for item in ((proto.s,) if kind is AttributeKind.STRING else proto.strings))
    return kind in _PLAIN


def part(name: str, index: int) -> str:
    """The name under which graphsurgeon carries one graph of a list of graphs."""
    return f"{name}\n{index}"


def attribute(proto: Any, carried: dict[str, Any], folder: Path | None, subgraph: Subgraph) -> Attribute:
    """An attribute, from what graphsurgeon carried where it does, else from its proto."""
    kind = AttributeKind(proto.type)
    if proto.ref_attr_name:
        return Attribute(kind, AttributeReference(proto.ref_attr_name), proto.doc_string)
    return Attribute(kind, _value(kind, proto, carried, folder, subgraph), proto.doc_string)


def _value(kind: AttributeKind, proto: Any, carried: dict[str, Any], folder: Path | None, subgraph: Subgraph) -> Any:
    if is_carried(proto):
        value = carried[proto.name]
        return tuple(value) if isinstance(value, list) else value
    if kind is AttributeKind.STRING:
        return proto.s
    if kind is AttributeKind.STRINGS:
        return tuple(item.decode() if _is_text(item) else item for item in proto.strings)
    if kind is AttributeKind.TENSOR:
        return onnx_tensors.constant(proto.t, folder)
    if kind is AttributeKind.TENSORS:
        return tuple(onnx_tensors.constant(tensor, folder) for tensor in proto.tensors)
    if kind is AttributeKind.GRAPH:
        return subgraph(carried[proto.name], proto.g)
    if kind is AttributeKind.GRAPHS:
        return tuple(subgraph(carried[part(proto.name, index)], graph) for index, graph in enumerate(proto.graphs))
    return proto.SerializeToString(deterministic=True)


def carried_value(attribute: Attribute) -> Any:
    """What graphsurgeon carries for this attribute, or None for graphs and for what goes beside."""
    value = attribute.value
    if isinstance(value, AttributeReference):
        return None
    if attribute.kind in (AttributeKind.FLOAT, AttributeKind.INT):
        return value
    if attribute.kind is AttributeKind.STRING:
        return value if isinstance(value, str) else None
    if attribute.kind in (AttributeKind.FLOATS, AttributeKind.INTS, AttributeKind.STRINGS) and value:
        return list(value) if not any(isinstance(item, bytes) for item in value) else None
    return None


def attribute_proto(name: str, attribute: Attribute, tensor: Callable[[Constant, str], Any]) -> Any:
    """The AttributeProto of an attribute that goes beside graphsurgeon. (Graphs never do.)"""
    import onnx

    if isinstance(attribute.value, bytes) and attribute.kind is not AttributeKind.STRING:
        proto = onnx.AttributeProto.FromString(attribute.value)
        proto.name = name
        return proto
    proto = onnx.AttributeProto(name=name, type=int(attribute.kind))
    value = attribute.value
    if isinstance(value, AttributeReference):
        proto.ref_attr_name = value.name
    elif attribute.kind is AttributeKind.STRING:
        proto.s = _bytes(value)
    elif attribute.kind is AttributeKind.STRINGS:
        proto.strings.extend(_bytes(item) for item in value)
    elif attribute.kind is AttributeKind.TENSOR:
        proto.t.CopyFrom(tensor(value, _stated_name(value)))
    elif attribute.kind is AttributeKind.TENSORS:
        proto.tensors.extend(tensor(item, _stated_name(item)) for item in value)
    return proto


def _stated_name(constant: Constant) -> str:
    """Tensors in attributes may have names too."""
    source = constant.source
    return str(getattr(source.proto if isinstance(source, onnx_tensors.ExternalTensor) else source, "name", ""))


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()
