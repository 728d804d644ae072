"""Types of values, between ``onnx.TypeProto`` and the IR. (onnx-graphsurgeon flattens them; so they go beside it.)"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from deburr.ir.errors import DeburrError
from deburr.ir.types import Dim, DType, OpaqueType, Shape, TensorType, ValueType
from deburr.ir.value import Value


def element_type(number: int, where: str = "") -> DType:
    """
    :raises DeburrError: E103 for a number that ONNX gives no type.
    """
    try:
        return DType(number)
    except ValueError as error:
        raise DeburrError("E103", f"unknown element type {number}", where=where) from error


def value_type(proto: Any) -> ValueType | None:
    """The type that a TypeProto states, or None where it states nothing."""
    kind = proto.WhichOneof("value")
    if kind is None:
        return None
    if kind != "tensor_type":
        return OpaqueType(proto.SerializeToString(deterministic=True), _label(proto))
    tensor = proto.tensor_type
    shape = tuple(_dim(dim) for dim in tensor.shape.dim) if tensor.HasField("shape") else None
    return TensorType(element_type(tensor.elem_type), shape)


def type_proto(type: ValueType | None) -> Any:
    """The TypeProto that states this type."""
    import onnx

    proto = onnx.TypeProto()
    if isinstance(type, OpaqueType):
        proto.ParseFromString(type.proto)
    elif isinstance(type, TensorType):
        proto.tensor_type.elem_type = int(type.dtype)
        _set_shape(proto.tensor_type, type.shape)
    return proto


def declare(value: Value, info: Any) -> None:
    """Take over what a ValueInfoProto says about a value."""
    known = value_type(info.type)
    if known is not None:
        value.type = known
        exact = type_proto(known).SerializeToString(deterministic=True)
        stated = info.type.SerializeToString(deterministic=True)
        value.declared = b"" if stated == exact else stated
    value.doc = info.doc_string or value.doc
    value.metadata.update(properties(info.metadata_props))


def fill_value_info(info: Any, value: Value) -> None:
    """Make a ValueInfoProto say what the value says."""
    import onnx

    info.Clear()
    info.name = value.name
    proto = type_proto(value.type)
    if value.declared:
        stated = onnx.TypeProto.FromString(value.declared)
        proto = stated if value_type(stated) == value.type else proto
    if value.type is not None:
        info.type.CopyFrom(proto)
    if value.doc:
        info.doc_string = value.doc
    set_properties(info.metadata_props, value.metadata)


def properties(entries: Iterable[Any]) -> dict[str, str]:
    """A dictionary from repeated StringStringEntryProto."""
    return {entry.key: entry.value for entry in entries}


def set_properties(field: Any, entries: Mapping[str, str]) -> None:
    """Append the entries to a repeated StringStringEntryProto."""
    for key, value in entries.items():
        field.add(key=key, value=value)


def _dim(proto: Any) -> Dim:
    if proto.WhichOneof("value") == "dim_param":
        # Axes of one symbol are of one size. Exporters that write "?" at several of them mean that they do not know.
        return str(proto.dim_param) if any(map(str.isalnum, proto.dim_param)) else None
    # A negative size is how sloppy exporters write "unknown".
    return int(proto.dim_value) if proto.HasField("dim_value") and proto.dim_value >= 0 else None


def _set_shape(tensor: Any, shape: Shape | None) -> None:
    if shape is None:
        return
    tensor.shape.SetInParent()
    for dim in shape:
        added = tensor.shape.dim.add()
        if isinstance(dim, str):
            added.dim_param = dim
        elif dim is not None:
            added.dim_value = dim


def _label(proto: Any) -> str:
    kind = proto.WhichOneof("value")
    if kind is None:
        return "?"
    inner = getattr(proto, kind)
    if kind in ("sequence_type", "optional_type"):
        return f"{kind[:-5]}({_label(inner.elem_type)})"
    if kind == "map_type":
        return f"map({element_type(inner.key_type)}, {_label(inner.value_type)})"
    if kind in ("sparse_tensor_type", "tensor_type"):
        shape = tuple(_dim(dim) for dim in inner.shape.dim) if inner.HasField("shape") else None
        return ("sparse " if kind.startswith("sparse") else "") + str(TensorType(element_type(inner.elem_type), shape))
    return "opaque"
