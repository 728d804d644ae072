"""Tensors between ONNX protos and constants: lazily loaded, and written back untouched where nothing changed.

onnx-graphsurgeon would load, convert or drop some of these (sparse, external, small floats), so they go beside it. A
constant's `source` is the TensorProto or SparseTensorProto that it came from, or an `ExternalTensor`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from deburr.ir.constants import Constant
from deburr.ir.errors import DeburrError
from deburr.ir.onnx_types import element_type
from deburr.ir.types import Array, DType

_mappings: WeakValueDictionary[tuple[int, ...], npt.NDArray[np.uint8]] = WeakValueDictionary()


@dataclass(frozen=True, eq=False)
class ExternalTensor:
    """A tensor whose bytes lie in a file: `data`, memory-mapped and so not read before it is used. `proto` holds the rest."""

    proto: Any
    data: npt.NDArray[np.uint8]

    def load(self) -> Array:
        dtype = DType(self.proto.data_type)
        if dtype.bits % 8 == 0 and np.little_endian:
            array = np.asarray(self.data).view(dtype.numpy).reshape(tuple(self.proto.dims))
            return np.require(array, requirements="A")
        return _array(self.inline())

    def inline(self) -> Any:
        """The same tensor with its bytes inside."""
        tensor = _without_location(self.proto)
        tensor.raw_data = self.data.tobytes()
        return tensor


def constant(proto: Any, folder: Path | None) -> Constant:
    """A lazy constant from a TensorProto. External data is looked for in `folder`, and checked but not read.

    :raises DeburrError: E106 for external data that is missing, too short or outside of the folder.
    """
    dtype, shape = element_type(proto.data_type, f"tensor {proto.name!r}"), tuple(proto.dims)
    if proto.data_location == proto.EXTERNAL:
        external = locate(proto, folder)
        return Constant(dtype, shape, external.load, external)
    return Constant(dtype, shape, lambda: _array(proto), proto)


def sparse_constant(proto: Any) -> Constant:
    """A lazy dense constant from a SparseTensorProto; untouched, it is written back sparse."""
    return Constant(element_type(proto.values.data_type), tuple(proto.dims), lambda: _dense(proto), proto)


def tensor_proto(constant: Constant, name: str) -> Any:
    """A TensorProto with the elements inside; its origin's own bytes where the constant was never replaced."""
    import onnx

    source = constant.source
    if isinstance(source, ExternalTensor):
        tensor = source.inline()
    elif isinstance(source, onnx.TensorProto):
        tensor = onnx.TensorProto()
        tensor.CopyFrom(source)
    else:
        tensor = from_array(constant)
    tensor.name = name
    return tensor


def from_array(constant: Constant) -> Any:
    """A new TensorProto from the elements, as raw little-endian bytes (strings as string_data)."""
    import onnx

    tensor = onnx.TensorProto(data_type=int(constant.dtype), dims=constant.shape)
    array = np.ascontiguousarray(constant.array)
    if constant.dtype is DType.STRING:
        tensor.string_data.extend(item if isinstance(item, bytes) else str(item).encode() for item in array.ravel())
    elif constant.dtype.bits < 8:
        tensor.raw_data = onnx.numpy_helper.from_array(array.astype(constant.dtype.numpy)).raw_data
    else:
        little = array if np.little_endian else array.byteswap()
        tensor.raw_data = little.tobytes()
    return tensor


def stub(constant: Constant, name: str, limit: int = 1024) -> Any:
    """As `tensor_proto` for up to `limit` elements; beyond that only dtype and dims, all that shape inference reads."""
    import onnx

    if constant.size <= limit:
        source = constant.source
        return from_array(constant) if isinstance(source, onnx.SparseTensorProto) else tensor_proto(constant, name)
    return onnx.TensorProto(name=name, data_type=int(constant.dtype), dims=constant.shape)


def locate(proto: Any, folder: Path | None) -> ExternalTensor:
    """Check where a tensor says that its data lies.

    :raises DeburrError: E106.
    """
    entries = {entry.key: entry.value for entry in proto.external_data}
    where = f"tensor {proto.name!r}"
    location = entries.get("location", "")
    if folder is None:
        raise DeburrError(
            "E106", "external data without a folder", where=where, why="the model did not come from a file",
            hint="give the path of the model",
        )  # fmt: skip
    dtype = element_type(proto.data_type, where)
    needed = (int(np.prod(proto.dims, dtype=object)) * dtype.bits + 7) // 8
    try:
        offset, count = int(entries.get("offset", 0)), int(entries.get("length", needed))
    except ValueError as error:
        raise DeburrError("E106", "external data with a malformed place", where=where, why=str(error)) from error
    file = _inside(location, folder, where)
    size = file.stat().st_size
    if offset < 0 or count < 0 or offset + count > size:
        why = f"bytes {offset} to {offset + count} of {location!r}, which has {size}"
        raise DeburrError("E106", "external data is too short", where=where, why=why, hint="fetch the whole file again")
    if dtype is DType.STRING or count != needed:
        why = f"{dtype}{list(proto.dims)} takes {needed} bytes, the file states {count}"
        raise DeburrError("E106", "external data of the wrong length", where=where, why=why)
    try:
        return ExternalTensor(_without_data(proto), _mapped(file)[offset : offset + count])
    except OSError as error:
        raise DeburrError("E106", "external data cannot be read", where=where, why=f"{file}: {error.strerror}") from error


def _mapped(file: Path) -> npt.NDArray[np.uint8]:
    """One mapping for all tensors of a file. It outlives the name: a model may be written over the one that it came from."""
    status = file.stat()
    if status.st_size == 0:
        return np.zeros(0, np.uint8)
    key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    mapping = _mappings.get(key)
    if mapping is None:
        mapping = _mappings[key] = np.memmap(file, np.uint8, "r")
    return mapping


def _inside(location: str, folder: Path, where: str) -> Path:
    base = folder.resolve()
    asked = Path(location)
    outside = not location or "\0" in location or asked.is_absolute() or ".." in asked.parts or "\\" in location
    file = base if outside else (base / asked).resolve()
    if outside or not file.is_relative_to(base) or file == base:
        raise DeburrError(
            "E106", "external data outside of the model's folder", where=where, why=f"its location is {location!r}",
            hint="put the data file beside the model and name it by a relative path",
        )  # fmt: skip
    if not file.is_file():
        raise DeburrError(
            "E106", "external data is missing", where=where, why=f"there is no file {file}", hint="put it beside the model"
        )
    return file


def _without_data(proto: Any) -> Any:
    tensor = type(proto)()
    tensor.CopyFrom(proto)
    for field in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data"):
        tensor.ClearField(field)
    return tensor


def _without_location(proto: Any) -> Any:
    tensor = type(proto)()
    tensor.CopyFrom(proto)
    tensor.ClearField("external_data")
    tensor.ClearField("data_location")
    return tensor


def _array(proto: Any) -> Array:
    import onnx.numpy_helper

    array: Array = onnx.numpy_helper.to_array(proto)
    return array


def _dense(proto: Any) -> Array:
    values, indices = _array(proto.values), np.asarray(_array(proto.indices), np.int64)
    dense = np.zeros(tuple(proto.dims), values.dtype)
    if indices.ndim == 2:
        dense[tuple(indices.T)] = values
    else:
        dense.reshape(-1)[indices] = values
    return dense
