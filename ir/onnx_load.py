"""Bytes to a ModelProto."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deburr.ir.errors import DeburrError


@dataclass(frozen=True)
class Loaded:
    """A parsed file: the proto, the folder in which external data may lie, and what to call it in messages."""

    proto: Any
    folder: Path | None
    name: str


def load(source: str | Path | bytes | Any) -> Loaded:
    """Parse a path, bytes or a ModelProto (which is copied: the IR refers to its tensors).

    :raises DeburrError: E101 where the file cannot be read, E102 where it is not an ONNX model.
    """
    import onnx

    if isinstance(source, onnx.ModelProto):
        proto = onnx.ModelProto()
        proto.CopyFrom(source)
        return Loaded(proto, None, "the model")
    if isinstance(source, bytes):
        return Loaded(_parse(source, "the model"), None, "the model")
    path = Path(source)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DeburrError(
            "E101", "cannot read the model", where=str(path), why=error.strerror or str(error), hint="check the path"
        ) from error
    return Loaded(_parse(data, str(path)), path.parent, str(path))


def _parse(data: bytes, name: str) -> Any:
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    hint = "give a file that torch.onnx.export, tf2onnx or onnx.save wrote"
    try:
        proto = onnx.ModelProto.FromString(data)
    except (DecodeError, ValueError) as error:
        raise DeburrError("E102", "not an ONNX model, or truncated", where=name, why=str(error), hint=hint) from error
    if not data or not proto.HasField("graph") or not proto.ir_version:
        why = "the file is empty" if not data else f"{len(data)} bytes without a graph or an IR version"
        raise DeburrError("E102", "not an ONNX model, or truncated", where=name, why=why, hint=hint)
    return proto
