"""A histogram of a stream whose range is not known beforehand, in constant memory."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from deburr.ir.types import Array

BINS = 4096
_CHUNK = 1 << 18  # elements that are binned at once: what lies between stays in the cache
FINEST = -1022  # the smallest exponent: its reciprocal is still a float64; all that a stream of zeros needs
_MANTISSA = 52  # bin numbers stay below 2**52, so that float64 holds them exactly


class Histogram:
    """Counts over `BINS` bins of width ``2**exponent``; bin i covers ``[first + i, first + i + 1) * 2**exponent``.

    Bins are aligned to multiples of their width. So bins of one width nest in those of twice the width, and widening the
    range merges whole bins: the result is exactly what one pass with the final width would have counted, whatever the order
    and the batches in which the data came.
    """

    def __init__(self) -> None:
        self.counts: npt.NDArray[np.int64] = np.zeros(BINS, np.int64)
        self.first, self.exponent = 0, FINEST
        self.low, self.high = math.inf, -math.inf  # the exact extremes
        self.total = 0

    def add(self, array: Array, weights: npt.NDArray[np.int64] | None = None) -> None:
        """Count every element of a float array of any shape, or add its weight: an integer >= 0, of a shape that broadcasts.

        :raises ValueError: for NaN or infinity.
        """
        flat = array.reshape(-1)
        heavy = None if weights is None else np.broadcast_to(weights, array.shape).reshape(-1)
        if flat.size == 0:
            return
        low, high = float(flat.min()), float(flat.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError("NaN or infinity")
        self._cover(min(low, self.low), max(high, self.high))
        factor = 2.0**-self.exponent
        for start in range(0, flat.size, _CHUNK):
            scaled = flat[start : start + _CHUNK].astype(np.float64) * factor
            bins = np.floor(scaled, out=scaled).astype(np.int64) - self.first
            if heavy is None:
                self.counts += np.bincount(bins, minlength=BINS)
            else:  # sums of float64, exact below 2**53
                self.counts += np.bincount(bins, heavy[start : start + _CHUNK], BINS).astype(np.int64)
        self.total += flat.size if heavy is None else int(heavy.sum())

    def _cover(self, low: float, high: float) -> None:
        """Move and widen the window until it holds `low` and `high`."""
        if (low, high) == (self.low, self.high):
            return
        exponent = max(self.exponent, _narrowest(low, high))
        while _bin(high, exponent) - _bin(low, exponent) >= BINS:
            exponent += 1
        first = _bin(low, exponent)
        if self.low <= self.high:
            held = np.flatnonzero(self.counts)
            bins = (held + self.first >> exponent - self.exponent) - first
            counts = np.zeros(BINS, np.int64)
            np.add.at(counts, bins, self.counts[held])
            self.counts = counts
        self.low, self.high, self.first, self.exponent = low, high, first, exponent

    @property
    def width(self) -> float:
        return 2.0**self.exponent

    @property
    def centers(self) -> npt.NDArray[np.float64]:
        """Middle of every bin, shape [BINS]."""
        centers: npt.NDArray[np.float64] = (self.first + np.arange(BINS, dtype=np.float64) + 0.5) * self.width
        return centers

    def quantile(self, fraction: float) -> float:
        """A number that `fraction` of the elements do not exceed, right to within one bin; the extremes are exact.

        :raises ValueError: if nothing was counted.
        """
        if not self.total:
            raise ValueError("no data")
        if fraction >= 1:
            return self.high
        wanted = fraction * self.total
        sums = np.cumsum(self.counts)
        index = int(np.searchsorted(sums, max(wanted, 1), side="left"))
        inside = 1 - (float(sums[index]) - wanted) / float(self.counts[index])
        edge = (self.first + index + min(max(inside, 0.0), 1.0)) * self.width
        return min(max(edge, self.low), self.high)


def _bin(x: float, exponent: int) -> int:
    return math.floor(math.ldexp(x, -exponent))


def _narrowest(low: float, high: float) -> int:
    """The smallest exponent at which bin numbers are exact and not wastefully far from what the range needs."""
    magnitude, span = max(abs(low), abs(high)), high - low
    exact = math.frexp(magnitude)[1] - _MANTISSA if magnitude else FINEST
    fitting = math.frexp(span / BINS)[1] - 1 if span else FINEST
    return max(FINEST, exact, fitting)
