"""Numbers and the integers that stand for them: ``q = saturate(round_half_even(x / scale) + zero_point)``, as ONNX says it."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from deburr.ir.types import Array, DType, QParams, broadcastable

Number = TypeVar("Number", np.float32, np.int32)
Real = TypeVar("Real", np.float32, np.float64)

# Scales below this would make x / scale overflow, or be subnormal, which some processors flush to zero.
SMALLEST_SCALE = 2.0**-100
LARGEST_SCALE = 2.0**120


def limits(dtype: DType, bits: int | None = None) -> tuple[int, int]:
    """The smallest and the largest integer of a quantized type, or of so many bits of it."""
    bits = bits or dtype.bits
    return (0, 2**bits - 1) if dtype.name.startswith("U") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def affine(
    low: npt.ArrayLike,
    high: npt.ArrayLike,
    dtype: DType,
    axis: int | None = None,
    *,
    block_size: int | None = None,
    bits: int | None = None,
) -> QParams:
    """Covering ``[low, high]`` widened to hold zero, which some integer then stands for exactly: (high - low) / (2**bits - 1).

    Where nothing is negative the zero point is the smallest integer, so that saturation does what ReLU does.

    :param low: numbers shaped as `QParams.scale`; so is `high`.
    """
    low, high = np.minimum(np.asarray(low, np.float64), 0.0), np.maximum(np.asarray(high, np.float64), 0.0)
    smallest, largest = limits(dtype, bits)
    scale = _scale(np.where(high > low, (high - low) / (largest - smallest), 1 / largest))
    zero_point = np.clip(np.rint(smallest - low / scale.astype(np.float64)), smallest, largest)
    return QParams(scale, np.asarray(zero_point, np.int32), dtype, axis, block_size, _fewer(bits, dtype))


def symmetric(
    magnitude: npt.NDArray[np.float32],
    dtype: DType,
    axis: int | None = None,
    *,
    block_size: int | None = None,
    bits: int | None = None,
) -> QParams:
    """Zero point 0, covering ``[-magnitude, magnitude]``; the smallest integer is not used.

    :param magnitude: numbers above 0, shaped as `QParams.scale`.
    """
    scale = _scale(magnitude.astype(np.float64) / limits(dtype, bits)[1])
    return QParams(scale, np.zeros(magnitude.shape, np.int32), dtype, axis, block_size, _fewer(bits, dtype))


def per_scale(x: npt.NDArray[Real], combine: np.ufunc, axis: int | None, block_size: int = 0) -> npt.NDArray[Real]:
    """What `combine` (np.add, np.maximum, …) makes of the elements that share a scale, shaped as `QParams.scale`.

    :param block_size: 0 where there are no blocks.
    """
    if block_size and axis is not None:
        made: npt.NDArray[Real] = combine.reduceat(x, np.arange(0, x.shape[axis], block_size), axis=axis)
        return made
    others = tuple(other for other in range(x.ndim) if axis is None or other != axis % x.ndim)
    return np.asarray(combine.reduce(x, axis=others))


def _fewer(bits: int | None, dtype: DType) -> int | None:
    return None if bits == dtype.bits else bits


def signed(low: float, high: float, dtype: DType, bits: int | None = None) -> QParams:
    """Per tensor and symmetric, covering ``[low, high]`` and as much on the other side of zero."""
    magnitude = max(abs(low), abs(high))
    return symmetric(np.asarray(magnitude if magnitude > 0 else 1.0, np.float32), dtype, bits=bits)


def quantize(x: npt.NDArray[np.float32], qparams: QParams) -> Array:
    """The integers that stand for `x`, of the numpy type of ``qparams.dtype``, same shape.

    The quotient is taken in float32, like ONNX Runtime does.
    """
    smallest, largest = limits(qparams.dtype, qparams.bits)
    scale, zero_point = along(qparams.scale, qparams, x.shape), along(qparams.zero_point, qparams, x.shape)
    rounded = np.rint(x.astype(np.float32) / scale)
    integers: Array = np.clip(rounded.astype(np.float64) + zero_point, smallest, largest).astype(qparams.dtype.numpy)
    return integers


def dequantize(q: Array, qparams: QParams) -> npt.NDArray[np.float32]:
    """The numbers that the integers stand for, float32, same shape."""
    scale, zero_point = along(qparams.scale, qparams, q.shape), along(qparams.zero_point, qparams, q.shape)
    numbers: npt.NDArray[np.float32] = (q.astype(np.int64) - zero_point).astype(np.float32) * scale
    return numbers


def round_trip(x: npt.NDArray[np.float32], qparams: QParams) -> npt.NDArray[np.float32]:
    """What is left of `x` after quantization."""
    return dequantize(quantize(x, qparams), qparams)


def along(parameter: npt.NDArray[Number], qparams: QParams, shape: tuple[int, ...]) -> npt.NDArray[Number]:
    """A parameter (scale or zero point), shaped to broadcast against a tensor of this shape."""
    return broadcastable(parameter, shape, qparams.axis, qparams.block_size or 0)


def _scale(scale: npt.ArrayLike) -> npt.NDArray[np.float32]:
    return np.asarray(np.clip(np.asarray(scale, np.float64), SMALLEST_SCALE, LARGEST_SCALE), np.float32)
