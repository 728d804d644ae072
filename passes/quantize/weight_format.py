"""What weights are to become: how many bits, with a zero point or without, and how many of them share a scale."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deburr.ir.types import DType, QParams
from deburr.passes.quantize.arithmetic import affine, limits, symmetric


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """How the weights of a layer become integers.

    :param bits: of each, 2 to 8, in the smallest type of opset 21 that holds them: 4 bits or 8.
    :param affine: a scale covers [min, max] with unsigned integers and a zero point, (max - min) / (2**bits - 1); otherwise
        [-max, max] with signed ones, max / (2**(bits - 1) - 1).
    :param block: the elements along the axis that is summed over that share a scale. 0: all of an output channel.
    """

    bits: int = 8
    affine: bool = False
    block: int = 0

    @classmethod
    def of(cls, qparams: QParams) -> WeightFormat:
        return cls(qparams.bits or qparams.dtype.bits, qparams.dtype.name.startswith("U"), qparams.block_size or 0)

    @property
    def dtype(self) -> DType:
        if self.bits > 4:
            return DType.UINT8 if self.affine else DType.INT8
        return DType.UINT4 if self.affine else DType.INT4

    @property
    def steps(self) -> int:
        """How many scales wide the range is that is covered."""
        smallest, largest = limits(self.dtype, self.bits)
        return largest - smallest if self.affine else 2 * largest

    def range_of(
        self, low: npt.NDArray[np.float32], high: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """The range that holds weights from `low` to `high`, and zero."""
        zero = np.float32(0)
        if self.affine:
            return np.minimum(low, zero), np.maximum(high, zero)
        magnitude = np.maximum(-low, high)
        return -magnitude, magnitude

    def qparams(self, low: npt.NDArray[np.float32], high: npt.NDArray[np.float32], axis: int | None) -> QParams:
        """Integers for a range of `range_of`, which is not empty.

        :param axis: of the output channels, or, with blocks, the one that is summed over.
        """
        block_size = self.block or None
        if self.affine:
            return affine(low, high, self.dtype, axis, block_size=block_size, bits=self.bits)
        return symmetric(high, self.dtype, axis, block_size=block_size, bits=self.bits)
