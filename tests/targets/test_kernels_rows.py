"""Softmax, normalizations and reductions along rows against numpy, on every instruction set, whole vectors or not."""

import numpy as np
import pytest
from kernel_reference import TARGETS, execute

from deburr.targets.kernels.workload import Rows

ISAS = pytest.mark.parametrize("isa", list(TARGETS))
SIZES = pytest.mark.parametrize(("rows", "size"), [(1, 1), (3, 37), (96, 128)])


def run(w, target, *arrays):
    names = ("data", "scale", "bias")[: len(arrays)]
    return execute(w, target, dict(zip(names, arrays, strict=True)))


def values(rows, size):
    return np.random.default_rng(rows * size).standard_normal((rows, size)).astype(np.float32) * 4


@ISAS
@SIZES
def test_softmax(isa, rows, size):
    data = values(rows, size) + 80  # beyond what exp holds, were the largest not taken off
    data[0, 0] = -np.inf if size > 1 else 0  # a masked element
    wide = np.exp(data.astype(np.float64) - data.max(axis=1, keepdims=True))
    result = run(Rows("softmax", rows, size, TARGETS[isa].lanes), TARGETS[isa], data)
    np.testing.assert_allclose(result, wide / wide.sum(axis=1, keepdims=True), rtol=2e-6, atol=1e-9)


@ISAS
@pytest.mark.parametrize(("kind", "rows", "size"), [("mean", 5, 37), ("sum", 1, 16), ("max", 3, 5), ("min", 96, 130)])
def test_reductions(isa, rows, size, kind):
    data = values(rows, size)
    result = run(Rows(kind, rows, size, TARGETS[isa].lanes), TARGETS[isa], data)
    np.testing.assert_allclose(result, getattr(np, kind)(data.astype(np.float64), axis=1), rtol=1e-5, atol=1e-4)


@ISAS
@pytest.mark.parametrize(
    ("shape", "size", "inner"),
    [((3, 771), 771, 1), ((2, 4, 32), 32, 1), ((2, 5, 6, 7), 42, 42), ((2, 12, 5, 7), 4 * 35, 35), ((1, 6, 16), 96, 16)],
    ids=["layer", "layer of vectors", "instance", "group", "one group"],
)
def test_normalizations(isa, shape, size, inner):
    rng = np.random.default_rng(0)
    channels = size if inner == 1 else shape[1]
    data = (rng.standard_normal(shape) + 1000).astype(np.float32)  # sums of squares would have lost the variance
    scale, bias = (rng.standard_normal(channels).astype(np.float32) for _ in range(2))
    flat = data.astype(np.float64).reshape(-1, size)
    centred = flat - flat.mean(axis=1, keepdims=True)
    plain = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5)
    channel = np.arange(data.size).reshape(flat.shape) // inner % channels
    w = Rows("normalize", len(flat), size, TARGETS[isa].lanes, channels, inner, 1e-5)
    result = run(w, TARGETS[isa], data.reshape(flat.shape), scale, bias)
    np.testing.assert_allclose(result, plain * scale[channel] + bias[channel], rtol=2e-3, atol=2e-3)
