"""Tensor elements as text: few of them written out, exactly; many by the hash under which the side file holds them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from deburr.ir.constants import Constant
from deburr.ir.text.names import string
from deburr.ir.types import Array, DType

INLINE = 8  # a constant with more elements than this is written as its hash
DIGITS = 16  # of the hash


def weight_key(constant: Constant) -> str:
    """The key of a constant in the side file."""
    return constant.digest[:DIGITS]


def is_inline(constant: Constant) -> bool:
    return constant.size <= INLINE


def payload(constant: Constant) -> str:
    """The elements without dtype and dims: one, a flat list, raw bytes (NaN with a message inside), or a hash."""
    if not is_inline(constant):
        return f"sha256:{weight_key(constant)}"
    items = element_texts(constant)
    if not _reads_back(items, constant):
        return f'hex"{np.ascontiguousarray(constant.array).tobytes().hex()}"'
    return items[0] if constant.shape == () and len(items) == 1 else f"[{', '.join(items)}]"


def element_texts(constant: Constant) -> list[str]:
    """One text per element, in row-major order; two for a complex number."""
    flat = np.ascontiguousarray(constant.array).reshape(-1)
    if constant.dtype is DType.STRING:
        return [string(item if isinstance(item, bytes) else str(item)) for item in flat.tolist()]
    if constant.dtype is DType.BOOL:
        return ["true" if item else "false" for item in flat]
    if constant.dtype.is_integer:
        return [str(int(item)) for item in flat]
    return [str(item) for item in (flat.view(flat.real.dtype) if flat.dtype.kind == "c" else flat)]


def array_of(items: Sequence[str | bytes], dtype: DType, shape: tuple[int, ...]) -> Array:
    """Elements from their texts (for strings: from their values).

    :raises ValueError: for texts that are no elements of this dtype, or are too many or too few.
    """
    if dtype is DType.STRING:
        array: Array = np.empty(len(items), object)
        array[:] = items
        return array.reshape(shape)
    texts = [str(item) for item in items]
    if dtype is DType.BOOL:
        if not {*texts} <= {"true", "false"}:
            raise ValueError("a bool is true or false")
        return np.array([text == "true" for text in texts], bool).reshape(shape)
    if dtype.is_integer:
        return _integers([int(text) for text in texts], dtype).reshape(shape)
    if dtype in (DType.COMPLEX64, DType.COMPLEX128):
        parts = np.array(texts, np.float32 if dtype is DType.COMPLEX64 else np.float64)
        return parts.view(dtype.numpy).reshape(shape)
    # A string goes to float32 and float64 directly, so that no element is rounded twice.
    direct = dtype in (DType.FLOAT, DType.DOUBLE)
    numbers = [np.float32(text) if dtype is DType.FLOAT else np.float64(text) for text in texts]
    array = np.array(numbers, dtype.numpy if direct else np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        return array.astype(dtype.numpy).reshape(shape)


def raw_array(data: bytes, dtype: DType, shape: tuple[int, ...]) -> Array:
    """:raises ValueError: if the bytes are too many or too few."""
    return np.frombuffer(data, dtype.numpy).reshape(shape)


def _integers(numbers: list[int], dtype: DType) -> Array:
    bits, signed = dtype.bits, not dtype.name.startswith("U")
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    for number in numbers:
        if not low <= number <= high:
            raise ValueError(f"{number} does not fit into {dtype}")
    return np.array(numbers, np.int64 if signed else np.uint64).astype(dtype.numpy)


def _reads_back(items: list[str], constant: Constant) -> bool:
    if constant.dtype in (DType.STRING, DType.BOOL) or constant.dtype.is_integer:
        return True
    return array_of(items, constant.dtype, constant.shape).tobytes() == np.ascontiguousarray(constant.array).tobytes()
