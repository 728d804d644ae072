"""Observers watch a tensor go by in batches and then say which range its integers should cover.

A plugin is a subclass of `Observer`, named by an entry point in the group ``deburr.observers``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from deburr.ir.types import Array
from deburr.passes.quantize.histogram import Histogram


@dataclass(frozen=True, slots=True, eq=False)
class ObserverSettings:
    """What `calibrate` was told, and what it knows of the tensor.

    :param percentile: 50 to 100.
    :param levels: how many integers there are to spend.
    :param gains: for each element of a sample, how much its squared error changes what reads it, of a shape that broadcasts
        against a sample. None unless the observer asks for it.
    """

    percentile: float = 99.999
    levels: int = 256
    gains: npt.NDArray[np.float64] | None = None


class Observer(ABC):
    """One is made for each tensor. Memory must not grow with the number of batches.

    :cvar needs_gains: whether `settings.gains` are to be found out.
    """

    needs_gains: ClassVar[bool] = False

    def __init__(self, settings: ObserverSettings) -> None:
        self.settings = settings

    @abstractmethod
    def update(self, array: Array) -> None:
        """Look at a batch: float32, any shape, finite."""

    @abstractmethod
    def range(self) -> tuple[float, float]:
        """The smallest and the largest number to represent; what lies outside will be clamped."""


class MinMax(Observer):
    """Everything that was seen: nothing of the calibration data is clamped."""

    def __init__(self, settings: ObserverSettings) -> None:
        super().__init__(settings)
        self._low, self._high = math.inf, -math.inf

    def update(self, array: Array) -> None:
        if array.size:
            self._low = min(self._low, float(array.min()))
            self._high = max(self._high, float(array.max()))

    def range(self) -> tuple[float, float]:
        return (self._low, self._high) if self._low <= self._high else (0.0, 0.0)


class MovingAverage(Observer):
    """The extremes of a sample, averaged over samples: the plain mean of the first hundred, from there on an exponential one.

    One sample far out moves the range by a hundredth. Jacob et al.: "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", CVPR 2018, section 3.1, which averages over batches; samples do not depend on those.
    """

    _SMALLEST_SHARE = 0.01

    def __init__(self, settings: ObserverSettings) -> None:
        super().__init__(settings)
        self._seen, self._low, self._high = 0, 0.0, 0.0

    def update(self, array: Array) -> None:
        if not array.size:
            return
        samples = array.reshape(len(array) if array.ndim else 1, -1)
        for low, high in zip(samples.min(axis=1).tolist(), samples.max(axis=1).tolist(), strict=True):
            self._seen += 1
            share = max(1 / self._seen, self._SMALLEST_SHARE)
            self._low += share * (low - self._low)
            self._high += share * (high - self._high)

    def range(self) -> tuple[float, float]:
        return self._low, self._high


class HistogramObserver(Observer):
    """Base of the observers that need the distribution."""

    def __init__(self, settings: ObserverSettings) -> None:
        super().__init__(settings)
        self._histogram = Histogram()

    def update(self, array: Array) -> None:
        self._histogram.add(array)


class Percentile(HistogramObserver):
    """All but the outermost ``100 - percentile`` per cent of the elements, at each end, to within a bin of the histogram."""

    def range(self) -> tuple[float, float]:
        if not self._histogram.total:
            return 0.0, 0.0
        fraction = self.settings.percentile / 100
        return self._histogram.quantile(1 - fraction), self._histogram.quantile(fraction)


class MeanSquaredError(HistogramObserver):
    """The range, among shrunken copies of the full one, whose integers are nearest to the data in the mean square."""

    _CANDIDATES = np.linspace(1.0, 0.2, 81)

    def range(self) -> tuple[float, float]:
        seen = self._histogram
        low, high = min(seen.low, 0.0), max(seen.high, 0.0)
        if not seen.total or low == high:
            return (low, high) if seen.total else (0.0, 0.0)
        held = np.flatnonzero(seen.counts)
        centers, weights = np.clip(seen.centers[held], seen.low, seen.high), seen.counts[held]
        errors = [self._error(centers, low * shrink, high * shrink) @ weights for shrink in self._CANDIDATES]
        best = float(self._CANDIDATES[int(np.argmin(errors))])
        return low * best, high * best

    def _error(self, x: npt.NDArray[np.float64], low: float, high: float) -> npt.NDArray[np.float64]:
        """Squared distance of each x to the nearest number that the range can represent."""
        step = (high - low) / (self.settings.levels - 1)
        nearest = np.clip(np.rint(x / step), math.floor(low / step + 0.5), math.floor(high / step + 0.5)) * step
        error: npt.NDArray[np.float64] = np.square(x - nearest)
        return error


class OutputWeightedError(MeanSquaredError):
    """As mean squared error, with each element's error weighted by how much of it arrives in what reads the tensor.

    Gains become integers up to 2**16, so that the weighted counts stay exact, whatever the order and the batches.
    """

    needs_gains: ClassVar[bool] = True
    _LARGEST_WEIGHT = 2**16

    def update(self, array: Array) -> None:
        gains = self.settings.gains
        largest = 0.0 if gains is None else float(gains.max(initial=0))
        if gains is None or not largest > 0:
            self._histogram.add(array)
        else:
            self._histogram.add(array, np.rint(gains / largest * self._LARGEST_WEIGHT).astype(np.int64))
