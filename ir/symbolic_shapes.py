"""Shapes that ONNX's inference leaves unknown where sizes are computed from symbols: node by node, in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from deburr.ir import onnx_types
from deburr.ir.graph import Graph
from deburr.ir.node import Node
from deburr.ir.symbolic_sizes import MOST, Sizes, broadcast, product, reshaped
from deburr.ir.types import Shape, TensorType
from deburr.ir.value import Value


def refine(graph: Graph, protos: Sequence[Any], opset: int) -> None:
    """Fill in sizes of the main graph that are unknown, where what goes in says them. What is known stays.

    :param protos: the nodes of `graph` as ONNX has them, in the same order.
    """
    if not any(_is_open(value) for node in graph.nodes for value in node.outputs):
        return
    sizes = Sizes()
    for node, proto in zip(graph.nodes, protos, strict=True):
        if any(_is_open(value) for value in node.outputs):
            for value, shape in zip(node.outputs, _shapes(node, proto, sizes, opset), strict=False):
                if value is not None and shape is not None:
                    _fill(value, shape)
        sizes.visit(node)


def _is_open(value: Value | None) -> bool:
    return value is not None and isinstance(value.type, TensorType) and (value.shape is None or None in value.shape)


def _fill(value: Value, shape: Shape) -> None:
    assert isinstance(value.type, TensorType)
    old = value.shape if value.shape is not None else (None,) * len(shape)
    if len(old) == len(shape):
        merged = tuple(found if dim is None else dim for dim, found in zip(old, shape, strict=True))
        value.graph.set_type(value, TensorType(value.type.dtype, merged))


def _shapes(node: Node, proto: Any, sizes: Sizes, opset: int) -> list[Shape | None]:
    """What a node makes of the shapes that go in; an empty list where nothing is known."""
    if node.domain not in ("", "ai.onnx") or any(attribute.graphs for attribute in node.attributes.values()):
        return []
    if node.op == "Flatten":
        dims, axis = node.input(0).shape, int(node.get("axis", 1))
        return [] if dims is None else [(product(dims[:axis]), product(dims[axis:]))]
    if node.op in ("Reshape", "Expand"):
        shape, wanted = node.input(0).shape, sizes.of(node.optional_input(1))
        if shape is None or wanted is None:
            return []
        if node.op == "Reshape":
            return [reshaped(shape, wanted, allow_zero=bool(node.get("allowzero", 0)))]
        return [broadcast(shape, wanted)]
    return _by_onnx(node, proto, sizes, opset)


def _by_onnx(node: Node, proto: Any, sizes: Sizes, opset: int) -> list[Shape | None]:
    import onnx

    values = [value for value in node.inputs if value is not None]
    types = {value.name: onnx_types.type_proto(value.type) for value in values if value.type is not None}
    data = {value.name: array for value in values if (array := _data(value, sizes)) is not None}
    try:
        schema = onnx.defs.get_schema(node.op, opset, "")
        made = onnx.shape_inference.infer_node_outputs(
            schema, proto, types, data, opset_imports=[onnx.helper.make_opsetid("", opset)]
        )
    except (onnx.shape_inference.InferenceError, onnx.defs.SchemaError, RuntimeError, ValueError, KeyError):
        return []
    found = [made.get(value.name) if value is not None else None for value in node.outputs]
    return [None if proto is None else _shape_of(proto) for proto in found]


def _shape_of(proto: Any) -> Shape | None:
    type_ = onnx_types.value_type(proto)
    return type_.shape if isinstance(type_, TensorType) else None


def _data(value: Value, sizes: Sizes) -> Any:
    """A small tensor whose elements are all known, as ONNX's inference looks into it."""
    import numpy as np
    import onnx

    if value.is_constant:
        array = value.array if value.static_shape is not None and np.prod(value.static_shape) <= MOST else None
        return None if array is None or array.dtype.kind not in "iuf" else onnx.numpy_helper.from_array(np.asarray(array))
    elements = sizes.of(value)
    if not elements or not all(isinstance(element, int) for element in elements) or value.static_shape is None:
        return None
    return onnx.numpy_helper.from_array(np.array(elements, np.int64).reshape(value.static_shape))
