"""Observers watch a tensor go by in batches and then say which range its integers should cover.

A plugin is a subclass of `Observer`, named by an entry point in the group ``deburr.observers``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deburr.ir.types import Array
from deburr.passes.quantize.histogram import Histogram


@dataclass(frozen=True, slots=True)
class ObserverSettings:
    """What `calibrate` was told: the percentile (50 to 100), and how many integers there are to spend."""

    percentile: float = 99.999
    levels: int = 256


class Observer(ABC):
    """One is made for each tensor. Memory must not grow with the number of batches."""

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


class Percentile(Observer):
    """All but the outermost ``100 - percentile`` per cent of the elements, at each end, to within a bin of the histogram."""

    def __init__(self, settings: ObserverSettings) -> None:
        super().__init__(settings)
        self._histogram = Histogram()

    def update(self, array: Array) -> None:
        self._histogram.add(array)

    def range(self) -> tuple[float, float]:
        if not self._histogram.total:
            return 0.0, 0.0
        fraction = self.settings.percentile / 100
        return self._histogram.quantile(1 - fraction), self._histogram.quantile(fraction)


class MeanSquaredError(Observer):
    """The range, among shrunken copies of the full one, whose integers are nearest to the data in the mean square."""

    _CANDIDATES = np.linspace(1.0, 0.2, 81)

    def __init__(self, settings: ObserverSettings) -> None:
        super().__init__(settings)
        self._histogram = Histogram()

    def update(self, array: Array) -> None:
        self._histogram.add(array)

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
