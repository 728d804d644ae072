"""Constant tensors: an array in memory, or one that is read from the model file when it is first needed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from deburr.ir.types import Array, DType


class Constant:
    """Dtype, dims and lazily loaded elements of a tensor. Immutable: to change a weight, give its value a new constant."""

    __slots__ = ("_array", "_digest", "_load", "dtype", "shape", "source")

    def __init__(self, dtype: DType, shape: tuple[int, ...], load: Callable[[], Array], source: object | None = None) -> None:
        """
        :param load: gives the elements; called once, at first use.
        :param source: what the reader keeps so that an untouched constant is written back without being loaded.
        """
        self.dtype, self.shape, self.source = dtype, shape, source
        self._load: Callable[[], Array] | None = load
        self._array: Array | None = None
        self._digest = ""

    @classmethod
    def of(cls, array: npt.ArrayLike, dtype: DType | None = None) -> Constant:
        """Wrap an array (a read-only view is kept, not a copy)."""
        kept = np.asarray(array)
        kept = kept.view() if kept.dtype != object else kept
        kept.flags.writeable = False
        constant = cls(dtype or DType.of(kept.dtype), kept.shape, lambda: kept)
        constant._array, constant._load = kept, None
        return constant

    @property
    def array(self) -> Array:
        """The elements, read-only, shape `shape`."""
        if self._array is None:
            assert self._load is not None
            array = self._load()
            if array.dtype != object and array.flags.owndata:
                array.flags.writeable = False
            self._array, self._load = array, None
        return self._array

    @property
    def is_loaded(self) -> bool:
        return self._array is not None

    @property
    def size(self) -> int:
        """Number of elements."""
        count = 1
        for dim in self.shape:
            count *= dim
        return count

    @property
    def nbytes(self) -> int:
        """Bytes that the elements take in a file."""
        return (self.size * self.dtype.bits + 7) // 8

    @property
    def digest(self) -> str:
        """SHA-256 of dtype, dims and bits, in hexadecimal. Elements that were not loaded yet are loaded, but not kept."""
        if not self._digest:
            array = self._array if self._array is not None or self._load is None else self._load()
            assert array is not None
            bits = repr(array.tolist()).encode() if array.dtype.kind in "OUS" else np.ascontiguousarray(array).tobytes()
            self._digest = hashlib.sha256(f"{self.dtype}{list(self.shape)}".encode() + bits).hexdigest()
        return self._digest

    def equals(self, other: Constant) -> bool:
        """Same dtype, dims and bits (NaN equals NaN)."""
        if self is other:
            return True
        if self.dtype != other.dtype or self.shape != other.shape:
            return False
        mine, theirs = self.array, other.array
        if object in (mine.dtype, theirs.dtype):
            return bool(mine.tolist() == theirs.tolist())
        return np.ascontiguousarray(mine).tobytes() == np.ascontiguousarray(theirs).tobytes()

    def __repr__(self) -> str:
        return f"Constant({self.dtype}, {list(self.shape)})"
