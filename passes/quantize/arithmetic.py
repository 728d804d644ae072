"""Numbers and the integers that stand for them: ``q = saturate(round_half_even(x / scale) + zero_point)``, as ONNX says it."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from deburr.ir.types import Array, DType, QParams

Number = TypeVar("Number", np.float32, np.int32)

# Scales below this would make x / scale overflow, or be subnormal, which some processors flush to zero.
SMALLEST_SCALE = 2.0**-100
LARGEST_SCALE = 2.0**120


def limits(dtype: DType) -> tuple[int, int]:
    """The smallest and the largest integer of a quantized type."""
    unsigned = dtype.name.startswith("U")
    return (0, 2**dtype.bits - 1) if unsigned else (-(2 ** (dtype.bits - 1)), 2 ** (dtype.bits - 1) - 1)


def affine(low: float, high: float, dtype: DType) -> QParams:
    """Per tensor, covering ``[low, high]`` widened to hold zero, which some integer then stands for exactly.

    Where nothing is negative the zero point is the smallest integer, so that saturation does what ReLU does.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    smallest, largest = limits(dtype)
    scale = _scale((high - low) / (largest - smallest) if high > low else 1 / largest)
    zero_point = round(smallest - low / float(scale))
    return QParams(scale, np.asarray(min(max(zero_point, smallest), largest), np.int32), dtype)


def symmetric(magnitude: npt.NDArray[np.float32], dtype: DType, axis: int | None) -> QParams:
    """Zero point 0, covering ``[-magnitude, magnitude]``; the smallest integer is not used. `magnitude` is [] or [C] > 0."""
    return QParams(_scale(magnitude.astype(np.float64) / limits(dtype)[1]), np.zeros(magnitude.shape, np.int32), dtype, axis)


def signed(low: float, high: float, dtype: DType) -> QParams:
    """Per tensor and symmetric, covering ``[low, high]`` and as much on the other side of zero."""
    magnitude = max(abs(low), abs(high))
    return symmetric(np.asarray(magnitude if magnitude > 0 else 1.0, np.float32), dtype, None)


def quantize(x: npt.NDArray[np.float32], qparams: QParams) -> Array:
    """The integers that stand for `x`, of the numpy type of ``qparams.dtype``, same shape.

    The quotient is taken in float32, like ONNX Runtime does.
    """
    smallest, largest = limits(qparams.dtype)
    scale, zero_point = _along(qparams.scale, qparams, x.ndim), _along(qparams.zero_point, qparams, x.ndim)
    rounded = np.rint(x.astype(np.float32) / scale)
    integers: Array = np.clip(rounded.astype(np.float64) + zero_point, smallest, largest).astype(qparams.dtype.numpy)
    return integers


def dequantize(q: Array, qparams: QParams) -> npt.NDArray[np.float32]:
    """The numbers that the integers stand for, float32, same shape."""
    scale, zero_point = _along(qparams.scale, qparams, q.ndim), _along(qparams.zero_point, qparams, q.ndim)
    numbers: npt.NDArray[np.float32] = (q.astype(np.int64) - zero_point).astype(np.float32) * scale
    return numbers


def round_trip(x: npt.NDArray[np.float32], qparams: QParams) -> npt.NDArray[np.float32]:
    """What is left of `x` after quantization."""
    return dequantize(quantize(x, qparams), qparams)


def _along(parameter: npt.NDArray[Number], qparams: QParams, rank: int) -> npt.NDArray[Number]:
    """A parameter shaped to broadcast against a tensor of this rank."""
    if qparams.axis is None:
        return parameter
    shape = [1] * rank
    shape[qparams.axis] = -1
    return parameter.reshape(shape)


def _scale(scale: npt.ArrayLike) -> npt.NDArray[np.float32]:
    return np.asarray(np.clip(np.asarray(scale, np.float64), SMALLEST_SCALE, LARGEST_SCALE), np.float32)
