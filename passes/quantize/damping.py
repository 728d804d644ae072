"""How far a covariance measured on few rows is to be trusted, by what rounding with it does to rows kept apart.

Damping shrinks the covariance towards a multiple of the identity, as Ledoit & Wolf 2004 ("A well-conditioned estimator for
large-dimensional covariance matrices") do; how much is chosen by cross-validation, because rows of one picture are not
independent, which formulas for the best amount take them to be.
"""

from __future__ import annotations

from deburr.passes.linear.layers import Matrix
from deburr.passes.linear.regression import Moments, damped
from deburr.passes.quantize.second_order import Grid, round_matrix

DAMPINGS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
UNKNOWN = 0.1  # where no rows are left to keep apart
OUTPUTS = 64  # of each group, enough to choose by


def choose_damping(weight: Matrix, grid: Grid, seen: Moments, apart: Moments) -> float:
    """The one of `DAMPINGS` with which weights refitted and rounded on the rows `seen` do best on those `apart`.

    :param weight: [groups, inputs, outputs].
    """
    if not (seen.count and apart.count):
        return UNKNOWN
    some = slice(None, None, max(1, weight.shape[2] // OUTPUTS))
    seen, apart = seen.of_outputs(some), apart.of_outputs(some)
    weight, grid, covariance = weight[:, :, some], grid.of_outputs(some), seen.centered()[0]
    losses = {}
    for damping in DAMPINGS:
        fitted, _ = seen.fit(weight, damping)
        losses[damping] = apart.loss(grid.weights(round_matrix(fitted, damped(covariance, damping), grid)))
    return min(losses, key=losses.__getitem__)
