"""The range whose integers keep most of what the distribution of a tensor tells."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from deburr.passes.quantize.observers import HistogramObserver

Counts = npt.NDArray[np.float64]

_STEPS = 256  # ranges that are tried
_FLOOR = 1e-4  # relative to the mean bin: what a bin counts as that holds data in P and none in Q


class Entropy(HistogramObserver):
    """Of the shrunken copies of the full range, the one of the smallest Kullback-Leibler divergence of Q from P.

    P is the distribution with what lies outside clamped to the ends, Q what `settings.levels` buckets of equal width say of it.
    Migacz: "8-bit Inference with TensorRT", GTC 2017. Zero is exact in every range, so the many zeros behind a ReLU say nothing
    about it: the bin that holds zero counts as much as the one next to it.
    """

    def range(self) -> tuple[float, float]:
        seen = self._histogram
        if not seen.total:
            return 0.0, 0.0
        whole = min(seen.low, 0.0), max(seen.high, 0.0)
        counts, zero = self._counts()
        below, above = zero, len(counts) - zero
        best, least = whole, np.inf
        # Fewer bins than levels would hold less than one count each: nothing is lost by them and nothing is learned.
        for shrink in np.linspace(1.0, min(1.0, self.settings.levels / len(counts)), _STEPS):
            start, stop = zero - int(np.ceil(below * shrink)), zero + int(np.ceil(above * shrink))
            divergence = _divergence(counts, start, stop, self.settings.levels)
            if divergence < least:
                best, least = ((start - zero) * seen.width, (stop - zero) * seen.width), divergence
        return max(whole[0], best[0]), min(whole[1], best[1])

    def _counts(self) -> tuple[Counts, int]:
        """Counts from the lowest bin to the highest, zero among them, and the place of the bin that starts at zero."""
        seen = self._histogram
        held = np.flatnonzero(seen.counts) + seen.first
        first, last = min(int(held[0]), 0), max(int(held[-1]), 0)
        counts = np.zeros(last - first + 1)
        counts[held - first] = seen.counts[held - seen.first]
        zero = -first
        if len(counts) > 1:
            counts[zero] = min(counts[zero], counts[zero + 1] if zero + 1 < len(counts) else counts[zero - 1])
        return counts, zero


def _divergence(counts: Counts, start: int, stop: int, levels: int) -> float:
    """KL(P || Q) for the bins start to stop, in nats."""
    inside = counts[start:stop]
    p = inside.copy()
    p[0] += counts[:start].sum()
    p[-1] += counts[stop:].sum()
    held = p > 0
    if not held.any():
        return np.inf
    level = np.arange(len(inside)) * min(levels, len(inside)) // len(inside)
    mass, width = np.bincount(level, inside), np.bincount(level, held)
    q = np.where(held, (mass / np.maximum(width, 1))[level], 0.0)
    q[held] = np.maximum(q[held], _FLOOR * p.mean())
    p, q = p[held] / p.sum(), q[held] / q.sum()
    return float(np.sum(p * np.log(p / q)))
