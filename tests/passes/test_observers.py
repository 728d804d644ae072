"""Observers against numpy on random streams: right to within a bin, whatever the order and the batches, in constant memory."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from deburr.passes.quantize.histogram import BINS, Histogram
from deburr.passes.quantize.observers import MeanSquaredError, MinMax, Observer, ObserverSettings, Percentile

floats = st.floats(-1e6, 1e6, width=32)
streams = st.lists(hnp.arrays(np.float32, st.integers(0, 50), elements=floats), min_size=1, max_size=6)


def watch(observer: Observer, stream: list[np.ndarray]) -> tuple[float, float]:
    for array in stream:
        observer.update(array)
    return observer.range()


def histogram(stream: list[np.ndarray]) -> Histogram:
    made = Histogram()
    for array in stream:
        made.add(array)
    return made


@given(streams)
def test_minmax_is_the_extremes(stream: list[np.ndarray]) -> None:
    data = np.concatenate(stream)
    wanted = (float(data.min()), float(data.max())) if data.size else (0.0, 0.0)
    assert watch(MinMax(ObserverSettings()), stream) == wanted


@given(streams)
@settings(max_examples=200)
def test_histogram_counts_what_numpy_counts(stream: list[np.ndarray]) -> None:
    data = np.concatenate(stream).astype(np.float64)
    seen = histogram(stream)
    assert seen.total == data.size == seen.counts.sum()
    if data.size:
        assert (seen.low, seen.high) == (data.min(), data.max())
        edges = (seen.first + np.arange(BINS + 1)) * seen.width
        bins = np.searchsorted(edges, data, side="right") - 1
        assert np.array_equal(seen.counts, np.bincount(bins, minlength=BINS))


@given(streams, st.integers(0, 2**32 - 1))
@example([np.array([0, 8.7218e-41], np.float32)], 0)  # zeros alone must not fix the width of a bin
@example([np.array([0, -1e-45], np.float32)], 0)
@settings(max_examples=200)
def test_histogram_does_not_depend_on_order_or_batches(stream: list[np.ndarray], seed: int) -> None:
    data = np.concatenate(stream)
    shuffled = [data[i : i + 1] for i in np.random.default_rng(seed).permutation(data.size)]
    one, other = histogram([data]), histogram(shuffled)
    assert (one.exponent, one.first, one.total) == (other.exponent, other.first, other.total) or not data.size
    assert np.array_equal(one.counts, other.counts)


@given(streams, st.floats(0, 1))
@settings(max_examples=200)
def test_quantile_is_right_to_within_a_bin(stream: list[np.ndarray], fraction: float) -> None:
    data = np.concatenate(stream).astype(np.float64)
    if data.size:
        seen = histogram(stream)
        exact = np.quantile(data, fraction, method="inverted_cdf")
        assert abs(seen.quantile(fraction) - exact) <= seen.width


def test_bins_are_fine_once_the_range_has_grown() -> None:
    random = np.random.default_rng(0)
    stream = [random.standard_normal(1000).astype(np.float32) * 10.0**power for power in range(-6, 4)]
    seen = histogram(stream)
    assert BINS / 2 - 1 <= (seen.high - seen.low) / seen.width <= BINS


@pytest.mark.parametrize("values", [[0.0], [-3.5], [1e-40], [3e38, -3e38], [0.0, 1e-30], [7.25] * 5])
def test_histogram_takes_extreme_streams(values: list[float]) -> None:
    seen = histogram([np.array([value], np.float32) for value in values])
    assert seen.counts.sum() == len(values)
    assert seen.quantile(1.0) == np.float32(max(values))


@pytest.mark.parametrize("kind", [Percentile, MeanSquaredError])
def test_infinity_is_refused(kind: type[Observer]) -> None:
    with pytest.raises(ValueError, match="NaN or infinity"):
        kind(ObserverSettings()).update(np.array([1, np.inf], np.float32))


@pytest.mark.parametrize("kind", [Percentile, MeanSquaredError])
def test_memory_is_constant(kind: type[Observer]) -> None:
    random, observer, sizes = np.random.default_rng(0), kind(ObserverSettings()), set()
    for step in range(200):
        observer.update(random.standard_normal(500).astype(np.float32) * (step + 1))
        held = [vars(part).values() for part in (observer, observer._histogram)]
        sizes.add(sum(v.nbytes for values in held for v in values if isinstance(v, np.ndarray)))
    assert sizes == {BINS * 8}


def test_percentile_cuts_outliers() -> None:
    data = np.concatenate([np.linspace(0, 1, 100_000), [1000.0]]).astype(np.float32)
    low, high = watch(Percentile(ObserverSettings(percentile=99.9)), [data])
    assert low == pytest.approx(0, abs=0.5)
    assert high == pytest.approx(1, abs=0.5)
    assert watch(Percentile(ObserverSettings(percentile=100)), [data]) == (0, 1000)


def test_mean_squared_error_finds_the_best_shrunken_range() -> None:
    data = np.random.default_rng(0).standard_t(3, 100_000).astype(np.float32)

    def error(low: float, high: float) -> float:
        step = (high - low) / 255
        integers = np.clip(np.rint(data / step), round(low / step), round(high / step))
        return float(np.square(data - integers * step).mean())

    ours = error(*watch(MeanSquaredError(ObserverSettings()), [data]))
    low, high = watch(MinMax(ObserverSettings()), [data])
    exhaustive = [error(low * shrink, high * shrink) for shrink in np.linspace(0.2, 1, 200)]
    assert ours <= min(exhaustive) * 1.01 < exhaustive[-1] * 0.9


def test_mean_squared_error_keeps_a_uniform_range() -> None:
    data = np.linspace(-1, 1, 10_000, dtype=np.float32)
    assert watch(MeanSquaredError(ObserverSettings()), [data]) == pytest.approx((-1, 1), abs=0.02)


@pytest.mark.parametrize("kind", [MinMax, Percentile, MeanSquaredError])
def test_nothing_seen_is_a_range_of_zero(kind: type[Observer]) -> None:
    assert watch(kind(ObserverSettings()), [np.empty(0, np.float32)]) == (0.0, 0.0)
