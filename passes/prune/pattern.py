"""Which weights go together: N:M runs and blocks.

N:M sparsity keeps the N largest of every M neighbours along the summed axis, as sparse tensor cores read it (Mishra et al.
2021, "Accelerating sparse deep neural networks": 2:4). Blocks of output x input channels go as a whole, so that a kernel can
skip a vector of work at a time (Narang et al. 2017, "Block-sparse recurrent neural networks").
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from deburr.ir.types import Array

Magnitudes = npt.NDArray[np.float64]


def outside_pattern(array: Array, axis: int, kept: int, of: int) -> npt.NDArray[np.bool_]:
    """Which elements go, in the array's shape: all but the `kept` largest magnitudes of each run of `of` along `axis`.

    The first of equal ones stays. A run at the end that is shorter keeps the same share of its own length, rounded up.
    """
    moved = np.moveaxis(np.abs(array.astype(np.float64)), axis, -1)
    gone = np.zeros(moved.shape, np.bool_)
    for start in range(0, moved.shape[-1], of):
        run = moved[..., start : start + of]
        left = -(-kept * run.shape[-1] // of)
        order = np.argsort(-run, axis=-1, kind="stable")
        np.put_along_axis(gone[..., start : start + of], order[..., left:], True, -1)
    return np.moveaxis(gone, -1, axis)


def block_magnitudes(array: Array, axes: tuple[int, int], block: tuple[int, int]) -> Magnitudes:
    """For each element, in the array's shape, the root mean square of its block.

    Blocks are `block` long along `axes` and one long along every other axis. Those at the end may be shorter; the mean makes
    them comparable with the others.
    """
    means, counts = np.square(array.astype(np.float64)), np.ones((1,) * array.ndim)
    for axis, length in zip(axes, block, strict=True):
        starts = np.arange(0, array.shape[axis], length)
        means = np.add.reduceat(means, starts, axis)
        lengths = np.diff([*starts.tolist(), array.shape[axis]])
        counts = counts * lengths.reshape([-1 if other == axis else 1 for other in range(array.ndim)])
    means = np.sqrt(means / counts)
    for axis, length in zip(axes, block, strict=True):
        means = np.take(means, np.arange(array.shape[axis]) // length, axis)
    return means
