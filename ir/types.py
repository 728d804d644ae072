"""Element types, shapes and quantization parameters."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]
Element = TypeVar("Element", bound=np.generic)
Dim = int | str | None  # a size, a symbol, or unknown
Shape = tuple[Dim, ...]


class DType(enum.IntEnum):
    """ONNX element types, with the values of ``TensorProto.DataType``."""

    UNDEFINED = 0
    FLOAT = 1
    UINT8 = 2
    INT8 = 3
    UINT16 = 4
    INT16 = 5
    INT32 = 6
    INT64 = 7
    STRING = 8
    BOOL = 9
    FLOAT16 = 10
    DOUBLE = 11
    UINT32 = 12
    UINT64 = 13
    COMPLEX64 = 14
    COMPLEX128 = 15
    BFLOAT16 = 16
    FLOAT8E4M3FN = 17
    FLOAT8E4M3FNUZ = 18
    FLOAT8E5M2 = 19
    FLOAT8E5M2FNUZ = 20
    UINT4 = 21
    INT4 = 22
    FLOAT4E2M1 = 23
    FLOAT8E8M0 = 24
    UINT2 = 25
    INT2 = 26
    FLOAT6E2M3 = 27
    FLOAT6E3M2 = 28

    @property
    def numpy(self) -> np.dtype[np.generic]:
        """The numpy type that holds one element (ml_dtypes' for the small ones).

        :raises TypeError: for UNDEFINED.
        """
        import onnx.helper

        dtype: np.dtype[np.generic] = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(int(self)))
        return dtype

    @classmethod
    def of(cls, dtype: npt.DTypeLike) -> DType:
        """The element type of a numpy dtype; strings and objects are STRING."""
        import onnx.helper

        given = np.dtype(dtype)
        if given.kind in "OUS":
            return cls.STRING
        return cls(onnx.helper.np_dtype_to_tensor_dtype(given))

    @property
    def bits(self) -> int:
        """Bits that one element takes in a file (0 where that depends on the value)."""
        if self in (DType.STRING, DType.UNDEFINED):
            return 0
        small = {DType.UINT4: 4, DType.INT4: 4, DType.FLOAT4E2M1: 4, DType.UINT2: 2, DType.INT2: 2}
        return small.get(self) or self.numpy.itemsize * 8

    @property
    def is_float(self) -> bool:
        return "FLOAT" in self.name or self is DType.DOUBLE

    @property
    def is_integer(self) -> bool:
        return "INT" in self.name

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class TensorType:
    """Element type and dims of a dense tensor; ``shape=None`` means that the rank is unknown."""

    dtype: DType
    shape: Shape | None = None

    @property
    def static_shape(self) -> tuple[int, ...] | None:
        """The dims if all of them are known numbers."""
        if self.shape is None or not all(isinstance(dim, int) for dim in self.shape):
            return None
        return tuple(dim for dim in self.shape if isinstance(dim, int))

    def __str__(self) -> str:
        if self.shape is None:
            return f"{self.dtype}[...]"
        return f"{self.dtype}[{', '.join('?' if dim is None else str(dim) for dim in self.shape)}]"


@dataclass(frozen=True, slots=True)
class OpaqueType:
    """A sequence, optional, map or sparse tensor: carried along as ONNX wrote it, never looked into."""

    proto: bytes  # a serialized onnx.TypeProto
    label: str = "opaque"

    def __str__(self) -> str:
        return self.label


ValueType = TensorType | OpaqueType


@dataclass(frozen=True, slots=True, eq=False)
class QParams:
    """How real numbers stand behind integers: ``real = scale * (integer - zero_point)``.

    `scale` (float32) and `zero_point` (int32) have shape [] per tensor, [C] along `axis`, or, in blocks of `block_size`
    elements along `axis`, the tensor's shape with ceil(C / block_size) in that place; the last block may be shorter. `bits` is
    given where integers use fewer of them than their type has.
    """

    scale: npt.NDArray[np.float32]
    zero_point: npt.NDArray[np.int32]
    dtype: DType
    axis: int | None = None
    block_size: int | None = None
    bits: int | None = None

    def __post_init__(self) -> None:
        if self.scale.shape != self.zero_point.shape or not self._has_rank():
            raise ValueError(f"scale {self.scale.shape}, zero point {self.zero_point.shape} and axis {self.axis} disagree")
        if not np.all(np.isfinite(self.scale)) or np.any(self.scale <= 0):
            raise ValueError("a scale must be finite and positive")
        if self.bits is not None and not 0 < self.bits < self.dtype.bits:
            raise ValueError(f"{self.dtype} does not hold integers of {self.bits} bits with bits to spare")

    def _has_rank(self) -> bool:
        if self.block_size is None:
            return self.scale.ndim == (self.axis is not None)
        return self.block_size > 0 and self.axis is not None and -self.scale.ndim <= self.axis < self.scale.ndim

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, QParams):
            return NotImplemented
        return (
            self._form() == other._form()
            and np.array_equal(self.scale, other.scale)
            and np.array_equal(self.zero_point, other.zero_point)
        )

    def __hash__(self) -> int:
        return hash((*self._form(), self.scale.tobytes(), self.zero_point.tobytes()))

    def _form(self) -> tuple[DType, int | None, int | None, int | None]:
        return self.dtype, self.axis, self.block_size, self.bits


def broadcastable(
    parameter: npt.NDArray[Element], shape: tuple[int, ...], axis: int | None, block_size: int = 0
) -> npt.NDArray[Element]:
    """A scale or zero point of QuantizeLinear, as it broadcasts against a tensor of this shape.

    :param axis: None for one that the whole tensor shares.
    :param block_size: of elements along `axis` that share one, the last of which may be fewer; 0: each index has its own.
    """
    if axis is None or parameter.size == 1:
        return parameter.reshape(())
    if block_size:
        return np.repeat(parameter, block_size, axis).take(range(shape[axis]), axis)
    return parameter.reshape([-1 if index == axis % len(shape) else 1 for index in range(len(shape))])
