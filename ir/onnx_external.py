"""External data: weights in a file of their own beside the model, for what protobuf's 2 GB cannot hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deburr.ir.constants import Constant
from deburr.ir.model import Model
from deburr.ir.onnx_tensors import ExternalTensor, from_array, tensor_proto
from deburr.ir.types import DType

LIMIT = 2**31 - 2**24  # bytes of tensors in one message: 16 MiB are left for everything else
SMALL = 1024  # bytes; smaller tensors stay inside, where readers that infer shapes look for them
_PAGE = 4096  # so that every tensor can be memory-mapped on its own


def is_too_big(model: Model) -> bool:
    """Whether the tensors alone fill a protobuf message."""
    attributes = (entry.value for graph in model.graphs for node in graph.nodes for entry in node.attributes.values())
    tensors = [value for value in attributes if isinstance(value, Constant)]
    return sum(constant.nbytes for constant in (*tensors, *(constant for _, constant in _initializers(model)))) > LIMIT


@dataclass(frozen=True)
class Layout:
    """Which constants go to the file `location`, and at which offset. `tensor` is a TensorWriter."""

    location: str
    places: dict[int, tuple[int, Constant]]  # id of the constant -> offset, constant; in the order of the file
    names: frozenset[tuple[str, int]]  # (value's name, id of its constant): tensors of attributes stay inside

    @classmethod
    def of(cls, model: Model, location: str) -> Layout:
        places: dict[int, tuple[int, Constant]] = {}
        names, end = [], 0
        for name, constant in _initializers(model):
            if constant.dtype is DType.STRING or constant.nbytes < SMALL or _is_sparse(constant):
                continue
            names.append((name, id(constant)))
            if id(constant) not in places:
                offset = -(-end // _PAGE) * _PAGE
                places[id(constant)] = offset, constant
                end = offset + constant.nbytes
        return cls(location, places, frozenset(names))

    def tensor(self, constant: Constant, name: str) -> Any:
        """A TensorProto that says where its elements lie, or holds them where they are not in the file."""
        import onnx

        if (name, id(constant)) not in self.names:
            return tensor_proto(constant, name)
        tensor = onnx.TensorProto(name=name, data_type=int(constant.dtype), dims=constant.shape)
        source = constant.source.proto if isinstance(constant.source, ExternalTensor) else constant.source
        if isinstance(source, onnx.TensorProto):
            tensor.doc_string = source.doc_string
            tensor.metadata_props.extend(source.metadata_props)
        tensor.data_location = onnx.TensorProto.EXTERNAL
        offset, _ = self.places[id(constant)]
        for key, entry in (("location", self.location), ("offset", str(offset)), ("length", str(constant.nbytes))):
            tensor.external_data.add(key=key, value=entry)
        return tensor

    def write(self, file: Path) -> None:
        """Write the data file; one tensor at a time is in memory."""
        with file.open("wb") as stream:
            for offset, constant in self.places.values():
                stream.write(bytes(offset - stream.tell()))
                stream.write(_content(constant))


def _initializers(model: Model) -> Iterator[tuple[str, Constant]]:
    for graph in model.graph.walk():
        for value in graph.values:
            if value.constant is not None:
                yield value.name, value.constant


def _is_sparse(constant: Constant) -> bool:
    import onnx

    return isinstance(constant.source, onnx.SparseTensorProto)


def _content(constant: Constant) -> Any:
    """The little-endian bytes of a constant, from where they lie if it was never loaded."""
    import onnx

    source = constant.source
    if isinstance(source, ExternalTensor):
        return source.data
    if isinstance(source, onnx.TensorProto) and source.HasField("raw_data"):
        return source.raw_data
    return from_array(constant).raw_data
