"""Rounding of a matrix with second-order compensation: what one row loses, the rows that are still to come make up for.

Frantar, Ashkboos, Hoefler, Alistarh: "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", ICLR
2023, which is the optimal brain surgeon of Hassibi & Stork 1993 with a fixed order of rows.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from deburr.passes.linear.layers import Matrix


def round_matrix(
    weight: Matrix, covariance: Matrix, scale: Matrix, bounds: tuple[npt.ArrayLike, npt.ArrayLike], damping: float
) -> Matrix:
    """Integers Q within bounds that keep tr((W - s Q)' H (W - s Q)) small.

    Rows of large variance go first, while most others can still compensate.

    :param weight: W [groups, inputs, outputs].
    :param covariance: H, second moments of the inputs, [groups, inputs, inputs].
    :param scale: s, the step of each weight, of a shape that broadcasts against W.
    :param bounds: the smallest and the largest integer, of such a shape as well.
    :param damping: added to the diagonal of H, relative to its mean.
    :return: Q [groups, inputs, outputs], float64 that hold integers.
    """
    size = weight.shape[1]
    variance = np.diagonal(covariance, axis1=1, axis2=2)
    order = np.argsort(-variance, axis=1, kind="stable")
    left, step, lowest, largest = (
        np.take_along_axis(np.broadcast_to(matrix, weight.shape), order[:, :, None], 1) for matrix in (weight, scale, *bounds)
    )
    sorted_ = np.take_along_axis(np.take_along_axis(covariance, order[:, :, None], 1), order[:, None, :], 2)
    ridge = damping * variance.mean(axis=1) + 1e-12 * (variance.max() + 1)
    factor = _upper_of_inverse(sorted_ + ridge[:, None, None] * np.eye(size))
    integers = np.empty_like(left)
    for row in range(size):
        integers[:, row] = np.clip(np.rint(left[:, row] / step[:, row]), lowest[:, row], largest[:, row])
        error = (left[:, row] - integers[:, row] * step[:, row]) / factor[:, row, row, None]
        left[:, row + 1 :] -= factor[:, row, row + 1 :, None] * error[:, None, :]
    made = np.empty_like(integers)
    np.put_along_axis(made, order[:, :, None], integers, 1)
    return made


def _upper_of_inverse(matrix: Matrix) -> Matrix:
    """U with U' U = inv(matrix), upper triangular: row i holds how the rows after i answer for an error in row i."""
    upper: Matrix = np.linalg.cholesky(np.linalg.inv(matrix)).transpose(0, 2, 1)
    return upper
