"""Ridge regression from streamed moments: memory does not depend on the number of samples."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from deburr.passes.linear.layers import Matrix, Rows

Indices = npt.NDArray[np.int64]


def some_rows(count: int, wanted: int, samples: tuple[int, int], random: np.random.Generator) -> Indices | slice:
    """Which of a batch's `count` rows are looked at, so that it comes to `wanted` over all batches; in order.

    :param samples: in this batch, and in all.
    """
    share = max(1, wanted * samples[0] // samples[1])
    return np.sort(random.choice(count, share, replace=False)) if share < count else slice(None)


class Moments:
    """Sums over rows of inputs X [groups, rows, inputs] and targets Y [groups, rows, outputs], for `fit`."""

    def __init__(self) -> None:
        self.count = 0
        self.x: Matrix = np.zeros(())
        self.y: Matrix = np.zeros(())
        self.xx: Matrix = np.zeros(())
        self.xy: Matrix = np.zeros(())

    def add(self, x: Rows, y: Rows) -> None:
        self.count += x.shape[1]
        across = x.transpose(0, 2, 1)
        self.x = self.x + x.sum(axis=1, dtype=np.float64)
        self.y = self.y + y.sum(axis=1, dtype=np.float64)
        self.xx = self.xx + (across @ x)
        self.xy = self.xy + (across @ y)

    def plus(self, other: Moments) -> Moments:
        """Those of the rows of both."""
        made = Moments()
        made.count = self.count + other.count
        made.x, made.y = self.x + other.x, self.y + other.y
        made.xx, made.xy = self.xx + other.xx, self.xy + other.xy
        return made

    def of_outputs(self, some: slice) -> Moments:
        """Those for some of the outputs."""
        made = Moments()
        made.count, made.x, made.xx = self.count, self.x, self.xx
        made.y, made.xy = self.y[:, some], self.xy[:, :, some]
        return made

    def centered(self) -> tuple[Matrix, Matrix]:
        """Covariances of the inputs [groups, inputs, inputs], and of inputs and targets."""
        mean_x, mean_y = self.x / self.count, self.y / self.count
        xx = self.xx / self.count - mean_x[:, :, None] * mean_x[:, None, :]
        return xx, self.xy / self.count - mean_x[:, :, None] * mean_y[:, None, :]

    def shrinkage(self, covariance: Matrix) -> Matrix:
        """How much of a covariance [groups, inputs, inputs] is to be taken for noise of few rows, 0 to 1, [groups].

        The weight of the identity, scaled to the mean variance, in the oracle approximating shrinkage estimator (Chen, Wiesel,
        Eldar, Hero 2010, "Shrinkage algorithms for MMSE covariance estimation", eq. 23).
        """
        size = covariance.shape[1]
        squares, trace = np.square(covariance).sum(axis=(1, 2)), np.trace(covariance, axis1=1, axis2=2)
        above = (1 - 2 / size) * squares + trace**2
        below = (self.count + 1 - 2 / size) * (squares - trace**2 / size)
        noise: Matrix = np.divide(above, below, out=np.ones_like(above), where=above < below)
        return noise

    def fit(self, weight: Matrix, damping: float) -> tuple[Matrix, Matrix]:
        """Weights [groups, inputs, outputs] and bias [groups, outputs] that minimize |X W + b - Y|² + damping·d·|W - weight|².

        d is the mean of the inputs' variances, so that damping has no unit. Solved by Cholesky in float64.
        """
        xx, xy = self.centered()
        factor = np.linalg.cholesky(damped(xx, damping))
        step = np.linalg.solve(factor.transpose(0, 2, 1), np.linalg.solve(factor, xy - xx @ weight))
        fitted = weight + step
        bias = (self.y - (self.x[:, None, :] @ fitted)[:, 0]) / self.count
        return fitted, bias

    def loss(self, weight: Matrix) -> float:
        """The mean of |X W + b - Y|² with the best b, less what no weight [groups, inputs, outputs] changes."""
        xx, xy = self.centered()
        return float((weight * (xx @ weight - 2 * xy)).sum())


def damped(covariance: Matrix, damping: float) -> Matrix:
    """A covariance [groups, inputs, inputs] with `damping` times its mean variance added to every variance."""
    variance = np.diagonal(covariance, axis1=1, axis2=2)
    ridge = damping * variance.mean(axis=1) + 1e-12 * variance.max(initial=0) + 1e-10
    made: Matrix = covariance + ridge[:, None, None] * np.eye(covariance.shape[1])
    return made
