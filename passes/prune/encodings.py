"""Compact forms of a weight that standard operators unpack: indices into a table of its values, and a bitmask beside nonzeros.

Both are exact. ONNX Runtime, like every compiler that folds constants, unpacks them when it loads the model, so that running it
takes no longer. ONNX has a sparse form of its own, sparse_initializer, which costs eight bytes of index for every element that
is kept, and whose type no operator with weights accepts: `onnx.checker` refuses such models where it infers types.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from deburr.ir.constants import Constant
from deburr.ir.types import Array, DType

_INDEX_TYPES = {16: DType.UINT4, 256: DType.UINT8, 65536: DType.UINT16}  # most values -> what counts them


@dataclass(frozen=True, eq=False)
class Indexed:
    """`table[indices]` is the tensor: `indices` in its shape, `table` of one axis."""

    table: Constant
    indices: Constant

    @property
    def nbytes(self) -> int:
        return self.table.nbytes + self.indices.nbytes


@dataclass(frozen=True, eq=False)
class Masked:
    """`bits` uint8 [ceil(size / 8), 1], least significant bit first, says which elements are not zero, row by row; `values` are
    a zero and these elements."""

    bits: Constant
    values: Constant

    @property
    def nbytes(self) -> int:
        return self.bits.nbytes + self.values.nbytes


def indexed(array: Array, *, four_bits: bool = True) -> Indexed | None:
    """The tensor as indices of the smallest type that counts its values; None where it has more than 65536, or NaN.

    :param four_bits: whether indices may be uint4, which the models of opset 21 may hold.
    """
    values, indices = np.unique(array.astype(np.float64), return_inverse=True)
    most = next((most for most in _INDEX_TYPES if len(values) <= most and (four_bits or most > 16)), None)
    if most is None or not np.isfinite(values).all():
        return None
    dtype = _INDEX_TYPES[most]
    numbers = indices.reshape(array.shape).astype(dtype.numpy)
    return Indexed(Constant.of(values.astype(array.dtype)), Constant.of(numbers, dtype))


def masked(array: Array) -> Masked:
    """The tensor as the places of its nonzeros, one bit for each element, and the nonzeros."""
    flat = array.ravel()
    mask: npt.NDArray[np.bool_] = flat != 0
    values = np.concatenate([np.zeros(1, array.dtype), flat[mask]])
    return Masked(Constant.of(np.packbits(mask, bitorder="little")[:, None]), Constant.of(values))


def sparse_proto(array: Array) -> Any:
    """The tensor as an `onnx.SparseTensorProto`: coordinates as int64 positions in the flat tensor, and the nonzeros."""
    from onnx import helper

    from deburr.ir.onnx_tensors import from_array

    flat = array.ravel()
    places = np.flatnonzero(flat)
    values, indices = from_array(Constant.of(flat[places])), from_array(Constant.of(places.astype(np.int64)))
    return helper.make_sparse_tensor(values, indices, list(array.shape))
