"""Rounding of a matrix with second-order compensation: what one row loses, the rows that are still to come make up for.

Frantar, Ashkboos, Hoefler, Alistarh: "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", ICLR
2023, which is the optimal brain surgeon of Hassibi & Stork 1993 with a fixed order of rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deburr.passes.linear.layers import Matrix

BLOCK = 64  # rows whose errors reach the rows after them in one product


@dataclass(frozen=True, slots=True)
class Grid:
    """The numbers that weights may become: whole multiples of a step, between bounds that count steps.

    Each is [groups, inputs, outputs], or [groups, 1, outputs] where the inputs share them.
    """

    scale: Matrix
    smallest: Matrix
    largest: Matrix

    @classmethod
    def uniform(cls, scale: Matrix, smallest: int, largest: int) -> Grid:
        """One step for each output, [groups, outputs], and bounds that all share."""
        rows = scale[:, None, :]
        return cls(rows, np.full_like(rows, smallest), np.full_like(rows, largest))

    def nearest(self, weights: Matrix, row: int) -> Matrix:
        """The integers for the weights of one input, [groups, outputs]."""
        made: Matrix = np.clip(np.rint(weights / _row(self.scale, row)), _row(self.smallest, row), _row(self.largest, row))
        return made

    def step(self, row: int) -> Matrix:
        """Of the weights of one input, [groups, outputs]."""
        return _row(self.scale, row)

    def weights(self, integers: Matrix) -> Matrix:
        """What integers [groups, inputs, outputs] stand for."""
        return integers * self.scale

    def loss(self, weight: Matrix, metric: Matrix, integers: Matrix) -> Matrix:
        """(w - s q)' H (w - s q) of each output, [groups, outputs]."""
        error = weight - self.weights(integers)
        made: Matrix = (error * (metric @ error)).sum(axis=1)
        return made

    def of_outputs(self, some: slice) -> Grid:
        """For some of the outputs."""
        return Grid(self.scale[:, :, some], self.smallest[:, :, some], self.largest[:, :, some])

    def of_inputs(self, some: slice) -> Grid:
        """For some of the inputs."""
        if self.scale.shape[1] == 1:
            return self
        return Grid(self.scale[:, some], self.smallest[:, some], self.largest[:, some])

    def ordered(self, order: npt.NDArray[np.int64]) -> Grid:
        """For inputs in another order, [groups, inputs]."""
        if self.scale.shape[1] == 1:
            return self
        return Grid(*(np.take_along_axis(one, order[:, :, None], 1) for one in (self.scale, self.smallest, self.largest)))


def _row(matrix: Matrix, row: int) -> Matrix:
    return matrix[:, row if matrix.shape[1] > 1 else 0]


def round_matrix(weight: Matrix, metric: Matrix, grid: Grid) -> Matrix:
    """Integers Q that keep tr((W - s Q)' H (W - s Q)) small.

    Rows of large variance go first, while most others can still compensate.

    :param weight: W [groups, inputs, outputs].
    :param metric: H, damped second moments of the inputs, positive definite, [groups, inputs, inputs].
    :return: Q [groups, inputs, outputs], float64 that hold integers.
    """
    size = weight.shape[1]
    order = np.argsort(-np.diagonal(metric, axis1=1, axis2=2), axis=1, kind="stable")
    left, grid = np.take_along_axis(weight, order[:, :, None], 1), grid.ordered(order)
    factor = _upper_of_inverse(np.take_along_axis(np.take_along_axis(metric, order[:, :, None], 1), order[:, None, :], 2))
    integers, errors = np.empty_like(left), np.empty_like(left)
    for first in range(0, size, BLOCK):
        end = min(first + BLOCK, size)
        for row in range(first, end):
            integers[:, row] = grid.nearest(left[:, row], row)
            errors[:, row] = (left[:, row] - integers[:, row] * grid.step(row)) / factor[:, row, row, None]
            left[:, row + 1 : end] -= factor[:, row, row + 1 : end, None] * errors[:, row, None, :]
        left[:, end:] -= factor[:, first:end, end:].transpose(0, 2, 1) @ errors[:, first:end]
    made = np.empty_like(integers)
    np.put_along_axis(made, order[:, :, None], integers, 1)
    return made


def _upper_of_inverse(matrix: Matrix) -> Matrix:
    """U with U' U = inv(matrix), upper triangular: row i holds how the rows after i answer for an error in row i."""
    upper: Matrix = np.linalg.cholesky(np.linalg.inv(matrix)).transpose(0, 2, 1)
    return upper
