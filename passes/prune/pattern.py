"""N:M sparsity: of every M neighbours along the summed axis, the N largest stay, as sparse tensor cores read it.

Mishra et al. 2021, "Accelerating sparse deep neural networks": 2:4.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from deburr.ir.types import Array


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
