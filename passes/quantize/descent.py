"""Coordinate descent over the integers that stand for weights, in turn with the scale that suits them best.

Nair, Suggala: "CDQuant: Greedy Coordinate Descent for Accurate LLM Quantization", 2024, in its cyclic form: one integer at a
time moves to where the error of the output is least while all others stay. The best scale for given integers is in closed form.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from deburr.passes.linear.layers import Matrix
from deburr.passes.quantize.second_order import BLOCK, Grid

ROUNDS, SWEEPS = 3, 2


def refine(weight: Matrix, metric: Matrix, integers: Matrix, grid: Grid, floor: Matrix) -> tuple[Matrix, Grid]:
    """Better integers and scales: (w - s q)' H (w - s q) falls for every output, or stays.

    :param weight: w [groups, inputs, outputs].
    :param metric: H, positive definite, [groups, inputs, inputs].
    :param integers: q [groups, inputs, outputs], where to start.
    :param grid: with one scale for each output.
    :param floor: what no scale may fall below, [groups, 1, outputs].
    :return: the integers, and a grid whose scales are numbers of float32.
    """
    for _ in range(ROUNDS):
        grid = replace(grid, scale=best_scale(weight, metric, integers, grid.scale, floor))
        integers = descend(weight, metric, integers, grid)
    return integers, replace(grid, scale=best_scale(weight, metric, integers, grid.scale, floor))


def best_scale(weight: Matrix, metric: Matrix, integers: Matrix, scale: Matrix, floor: Matrix) -> Matrix:
    """The least-squares scale (q' H w) / (q' H q) of each output, in float32, [groups, 1, outputs]; `scale` where that is not
    positive."""
    answered = metric @ integers
    needed, power = ((matrix * answered).sum(axis=1, keepdims=True) for matrix in (weight, integers))
    best = np.divide(needed, power, out=scale.copy(), where=(needed > 0) & (power > 0))
    made: Matrix = np.maximum(best, floor).astype(np.float32).astype(np.float64)
    return made


def descend(weight: Matrix, metric: Matrix, integers: Matrix, grid: Grid) -> Matrix:
    """Integers after `SWEEPS` sweeps over all inputs, or fewer where none moves any more."""
    integers, size = integers.copy(), weight.shape[1]
    gradient = metric @ (weight - grid.weights(integers))
    curvature = np.diagonal(metric, axis1=1, axis2=2)
    for _ in range(SWEEPS):
        before = integers.copy()
        for first in range(0, size, BLOCK):
            end = min(first + BLOCK, size)
            for row in range(first, end):
                step = gradient[:, row] / curvature[:, row, None]
                old = integers[:, row].copy()
                integers[:, row] = grid.nearest(old * grid.step(row) + step, row)
                moved = (integers[:, row] - old) * grid.step(row)
                gradient[:, first:end] -= metric[:, first:end, row, None] * moved[:, None, :]
            moves = grid.of_inputs(slice(first, end)).weights(integers[:, first:end] - before[:, first:end])
            gradient[:, :first] -= metric[:, :first, first:end] @ moves
            gradient[:, end:] -= metric[:, end:, first:end] @ moves
        if np.array_equal(before, integers):
            break
    return integers
