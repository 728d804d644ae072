"""Types of all values by ONNX shape inference, on a copy of the model without its big weights."""

from __future__ import annotations

import re
from typing import Any

from deburr.ir import onnx_tensors, symbolic_shapes
from deburr.ir.attributes import AttributeKind
from deburr.ir.graph import Graph
from deburr.ir.model import Model
from deburr.ir.onnx_types import value_type
from deburr.ir.types import Dim, DType, Shape, TensorType, ValueType

_GENERATED = re.compile(r"unk__\d+")


def infer(model: Model, *, overwrite: bool = False) -> None:
    """Fill in `Value.type` wherever ONNX's inference (with data propagation) knows more, in subgraphs too.

    What is declared stays, and so do the names of its symbols. Unknown operators stop nothing: what follows stays unknown.

    :param overwrite: forget the types of all that nodes produce first, for a model whose shapes were changed.
    """
    import onnx

    from deburr.ir.onnx_writer import to_proto

    old = _forget(model) if overwrite else {}
    proto = to_proto(model, onnx_tensors.stub)
    dims = [dim for graph in model.graph.walk() for value in graph.values for dim in value.shape or ()]
    symbols = {dim for dim in dims if isinstance(dim, str)}
    try:
        inferred = onnx.shape_inference.infer_shapes(proto, check_type=False, strict_mode=False, data_prop=True)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError, IndexError):
        inferred = proto
    _take(model.graph, inferred.graph, symbols)
    symbolic_shapes.refine(model.graph, proto.graph.node, model.opset)
    for value, before in old.items():
        if value.type is None:
            value.graph.set_type(value, before)


def _forget(model: Model) -> dict[Any, ValueType]:
    kept: dict[Any, ValueType] = {}
    for graph in model.graph.walk():
        for value in graph.values:
            if value.producer is not None and isinstance(value.type, TensorType):
                graph.set_type(value, TensorType(value.type.dtype) if value.is_output else None)
    return kept


def _take(graph: Graph, proto: Any, symbols: set[str]) -> None:
    for info in (*proto.value_info, *proto.output):
        value = graph._values.get(info.name)
        found = value_type(info.type)
        if value is not None and value.constant is None and found is not None:
            graph.set_type(value, _merge(value.type, found, symbols))
    for node_proto, node in zip(proto.node, graph.nodes, strict=True):
        attributes = {entry.name: entry for entry in node_proto.attribute}
        for name, attribute in node.attributes.items():
            inner = [attributes[name].g] if attribute.kind is AttributeKind.GRAPH else attributes[name].graphs
            for subgraph, subproto in zip(attribute.graphs, inner, strict=False):
                _take(subgraph, subproto, symbols)


def _merge(declared: ValueType | None, found: ValueType, symbols: set[str]) -> ValueType:
    if not isinstance(found, TensorType):
        return declared or found
    if declared is not None and not isinstance(declared, TensorType):
        return declared
    shape = None if found.shape is None else tuple(_known(dim, symbols) for dim in found.shape)
    if declared is None:
        return TensorType(found.dtype, shape)
    return TensorType(declared.dtype if declared.dtype is not DType.UNDEFINED else found.dtype, _shape(declared.shape, shape))


def _shape(declared: Shape | None, found: Shape | None) -> Shape | None:
    if declared is None or found is None or len(declared) != len(found):
        return found if declared is None else declared
    return tuple(other if dim is None else dim for dim, other in zip(declared, found, strict=True))


def _known(dim: Dim, symbols: set[str]) -> Dim:
    """ONNX makes up symbols (unk__0); ours are those that the model declares."""
    return None if isinstance(dim, str) and dim not in symbols and _GENERATED.fullmatch(dim) else dim
