"""One array of an .npz, read from the file a few rows at a time."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from deburr.ir.types import Array

_PIECE = 2**20  # bytes


@dataclass(frozen=True)
class StoredArray:
    """The first `shape[0]` rows of an array in an .npz, stored or compressed. Memory holds the rows that are asked for."""

    path: Path
    member: str
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]

    @classmethod
    def open(cls, archive: zipfile.ZipFile, path: Path, member: str) -> StoredArray | Array:
        """Read the header. An array that is a scalar or in Fortran order comes whole.

        :raises ValueError: for anything that is no array, or a pickled one.
        """
        with archive.open(member) as file:
            shape, fortran, dtype = _header(file)
        if not shape or fortran:
            with archive.open(member) as file:
                return np.asarray(np.lib.format.read_array(file, allow_pickle=False))
        return cls(path, member, shape, dtype)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def head(self, count: int) -> StoredArray:
        return replace(self, shape=(min(count, len(self)), *self.shape[1:]))

    def rows(self, size: int) -> Iterator[Array]:
        """Consecutive parts of at most `size` rows; the last may be shorter.

        :raises ValueError: where the file ends too early.
        """
        row = math.prod(self.shape[1:]) * self.dtype.itemsize
        with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as file:
            _header(file)
            for start in range(0, len(self), size):
                count = min(size, len(self) - start)
                yield _read(file, count * row).view(self.dtype).reshape(count, *self.shape[1:])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        whole = next(self.rows(len(self)), np.empty(self.shape, self.dtype))
        return whole if dtype is None else whole.astype(dtype)


def rows(array: Array | StoredArray, size: int) -> Iterator[Array]:
    """Consecutive parts of at most `size` rows."""
    if isinstance(array, StoredArray):
        yield from array.rows(size)
    else:
        yield from (array[start : start + size] for start in range(0, len(array), size))


def head(array: Array | StoredArray, count: int) -> Array | StoredArray:
    """The first `count` rows."""
    return array.head(count) if isinstance(array, StoredArray) else array[:count]


def _read(file: IO[bytes], size: int) -> npt.NDArray[np.uint8]:
    """Piece by piece: read at once, zipfile would hold all of it twice."""
    made = np.empty(size, np.uint8)
    for start in range(0, size, _PIECE):
        piece = np.frombuffer(file.read(min(_PIECE, size - start)), np.uint8)
        if not piece.size:
            raise ValueError("an array is cut short")
        made[start : start + piece.size] = piece
    return made


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    """Shape, whether in Fortran order, and dtype; `file` then stands at the first element."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version} of the .npy format")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise ValueError("Object arrays cannot be loaded when allow_pickle=False")
    return tuple(shape), bool(fortran), dtype
