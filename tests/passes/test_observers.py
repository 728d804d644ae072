"""Observers against numpy on random streams: right to within a bin, whatever the order and the batches, in constant memory."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from deburr.passes.quantize.entropy import Entropy
from deburr.passes.quantize.histogram import BINS, Histogram
from deburr.passes.quantize.observers import (
    MeanSquaredError,
    MinMax,
    MovingAverage,
    Observer,
    ObserverSettings,
    OutputWeightedError,
    Percentile,
)

HISTOGRAMS = [Percentile, Entropy, MeanSquaredError, OutputWeightedError]

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


@pytest.mark.parametrize("kind", HISTOGRAMS)
def test_infinity_is_refused(kind: type[Observer]) -> None:
    with pytest.raises(ValueError, match="NaN or infinity"):
        kind(ObserverSettings()).update(np.array([1, np.inf], np.float32))


@pytest.mark.parametrize("kind", HISTOGRAMS)
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


@pytest.mark.parametrize("kind", [MinMax, MovingAverage, *HISTOGRAMS])
def test_nothing_seen_is_a_range_of_zero(kind: type[Observer]) -> None:
    assert watch(kind(ObserverSettings()), [np.empty(0, np.float32)]) == (0.0, 0.0)


def test_one_sample_far_out_moves_a_moving_average_little() -> None:
    random = np.random.default_rng(0)
    stream = [random.uniform(-1, 1, (8, 500)).astype(np.float32) for _ in range(40)]
    stream[20][3, 7] = 1000
    assert watch(MinMax(ObserverSettings()), stream)[1] == 1000
    low, high = watch(MovingAverage(ObserverSettings()), stream)
    assert low == pytest.approx(-1, abs=0.02)
    assert high < 12


def test_a_moving_average_follows_samples_not_batches() -> None:
    data = np.random.default_rng(0).standard_normal((300, 20)).astype(np.float32)
    assert watch(MovingAverage(ObserverSettings()), [data]) == watch(MovingAverage(ObserverSettings()), np.split(data, 60))
    drifting = data + np.arange(300, dtype=np.float32)[:, None]
    assert 150 < np.mean(watch(MovingAverage(ObserverSettings()), [drifting])) < 299


def divergence(data: np.ndarray, low: float, high: float, levels: int) -> float:
    """KL of `data` from what the integers tell of it, each level's share spread evenly, by a fine histogram of numpy."""
    edges = np.linspace(data.min(), data.max(), 2049)
    p = np.histogram(np.clip(data, low, high), edges)[0].astype(float)
    inside = np.histogram(data[(data >= low) & (data <= high)], edges)[0].astype(float)
    level = np.floor((np.clip(edges[:-1], low, high) - low) / (high - low) * levels * 0.999999).astype(int)
    held = p > 0
    q = (np.bincount(level, inside) / np.maximum(np.bincount(level, held), 1))[level] * held
    p, q = p[held] / p.sum(), np.maximum(q[held], 1e-12) / q.sum()
    return float(np.sum(p * np.log(p / q)))


def test_entropy_clips_a_long_tail_and_tells_more_with_few_levels() -> None:
    """Where 16 integers stand for a long tail, the full range spends them on what hardly occurs."""
    data = np.abs(np.random.default_rng(0).laplace(0, 1, 400_000)).astype(np.float32)
    low, high = watch(Entropy(ObserverSettings(levels=16)), [data])
    assert low == 0
    assert 1 < high < data.max() * 0.8
    assert divergence(data, low, high, 16) < divergence(data, 0, float(data.max()), 16) / 2


def test_entropy_keeps_a_uniform_range() -> None:
    data = np.random.default_rng(0).uniform(-1, 1, 400_000).astype(np.float32)
    assert watch(Entropy(ObserverSettings()), [data]) == pytest.approx((-1, 1), abs=0.05)


def test_zeros_behind_a_relu_do_not_move_the_entropy_range() -> None:
    data = np.abs(np.random.default_rng(0).laplace(0, 1, 100_000)).astype(np.float32)
    clamped = [data, np.zeros(300_000, np.float32)]
    assert watch(Entropy(ObserverSettings()), clamped) == pytest.approx(watch(Entropy(ObserverSettings()), [data]), rel=0.01)


def test_output_weighted_clips_channels_that_nothing_reads() -> None:
    """A loud channel whose readers have tiny weights must not widen the steps of the one that counts."""
    random = np.random.default_rng(0)
    data = np.stack([random.normal(0, 1, (200, 50)), random.normal(0, 40, (200, 50))], axis=1).astype(np.float32)
    gains = np.array([[1.0], [1e-5]])

    def error(bounds: tuple[float, float]) -> float:
        step = (bounds[1] - bounds[0]) / 255
        integers = np.clip(np.rint(data / step), round(bounds[0] / step), round(bounds[1] / step))
        return float((np.square(data - integers * step) * gains).mean())

    weighted = watch(OutputWeightedError(ObserverSettings(gains=gains)), [data])
    plain = watch(MeanSquaredError(ObserverSettings()), [data])
    assert error(weighted) < error(plain) / 2
    assert watch(OutputWeightedError(ObserverSettings()), [data]) == plain


@given(streams)
def test_weights_count_like_repetitions(stream: list[np.ndarray]) -> None:
    data = np.concatenate(stream)
    weights = np.arange(data.size, dtype=np.int64) % 3 + 1
    weighted = Histogram()
    weighted.add(data, weights)
    assert np.array_equal(weighted.counts, histogram([np.repeat(data, weights)]).counts)
    assert weighted.total == weights.sum()
