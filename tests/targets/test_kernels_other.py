"""Pooling, sums, quantization and layout changes against numpy, on every instruction set."""

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from kernel_reference import EVERY, TARGETS, execute, fixed_point_add, requantize

from deburr.targets.kernels import pack
from deburr.targets.kernels.workload import (
    Add,
    ChangeLayout,
    Dequantize,
    FixedPointAdd,
    FloatEpilogue,
    Pool2d,
    Quantize,
    Requantize,
)
from deburr.targets.lower.fixed_point import LARGEST

QUICK = settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
ISAS = pytest.mark.parametrize("isa", list(TARGETS))


@st.composite
def pools(draw, isa):
    kernel = (draw(st.integers(1, 5)), draw(st.integers(1, 5)))
    pads = tuple(draw(st.integers(0, size - 1)) for size in (*kernel, *kernel))
    kind, dtype = draw(st.sampled_from(["max", "average"])), draw(st.sampled_from(["uint8", "float32"]))
    zero_point = draw(st.sampled_from([0, 17]))
    height, width = (max(1, size - a - b) for size, a, b in zip(kernel, pads[:2], pads[2:], strict=True))
    averages_integers = kind == "average" and dtype == "uint8"
    return Pool2d(
        kind, draw(st.integers(1, 2)), draw(st.integers(1, 70)),
        draw(st.integers(height, 40)), draw(st.integers(width, 40)), kernel,
        (draw(st.integers(1, 3)), draw(st.integers(1, 3))), pads, dtype, EVERY[isa].block, zero_point,
        0.9 / (kernel[0] * kernel[1]) if kind == "average" else 1.0,
        Requantize(4, 2, 250) if averages_integers and draw(st.booleans()) else None,
    )  # fmt: skip


def windows(w, data, outside):
    """[taps, N, C, OH, OW], `outside` beyond the border."""
    top, left, bottom, right = w.pads
    padded = np.pad(data, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=outside)
    rows, columns = (w.out_height - 1) * w.strides[0] + 1, (w.out_width - 1) * w.strides[1] + 1
    taps = [(y, x) for y in range(w.kernel[0]) for x in range(w.kernel[1])]
    return np.stack([padded[:, :, y : y + rows : w.strides[0], x : x + columns : w.strides[1]] for y, x in taps])


def pooled(w, data):
    if w.kind == "max":
        return windows(w, data, 0 if w.dtype == "uint8" else -np.inf).max(axis=0)
    zero_point = w.data_zero_point if w.dtype == "uint8" else 0
    wide = np.int64 if w.dtype == "uint8" else np.float64
    total = (windows(w, data, zero_point).astype(wide) - zero_point).sum(axis=0)
    if w.requantize is not None:
        return requantize(total, np.float32(w.multiplier), w.requantize)
    return total.astype(np.float32) * np.float32(w.multiplier)


@ISAS
@QUICK
@given(data=st.data())
def test_pools(isa, data):
    w = data.draw(pools(isa))
    rng = np.random.default_rng(0)
    shape = (w.batch, w.channels, w.in_height, w.in_width)
    values = (
        rng.integers(0, 256, shape).astype(np.uint8) if w.dtype == "uint8" else rng.standard_normal(shape).astype(np.float32)
    )
    result = execute(w, TARGETS[isa], {"data": pack.pack_activation(values, w.block)})
    result = pack.unpack_activation(result, w.channels)
    if w.dtype == "uint8":
        np.testing.assert_array_equal(result, pooled(w, values))
    else:
        np.testing.assert_allclose(result, pooled(w, values), rtol=1e-5, atol=1e-5)


@ISAS
@settings(QUICK, max_examples=8)
@given(
    st.builds(
        FixedPointAdd,
        a_zero=st.integers(0, 255),
        a_multiplier=st.integers(0, LARGEST // 255),
        b_zero=st.integers(0, 255),
        b_multiplier=st.integers(0, LARGEST // 255),
        shift=st.integers(1, 22),
        zero_point=st.integers(0, 255),
        low=st.sampled_from([0, 9]),
        high=st.sampled_from([255, 201]),
        offset=st.integers(-240, 240),
    ).filter(lambda how: 255 * (how.a_multiplier + how.b_multiplier) <= LARGEST)
)
@example(FixedPointAdd(0, LARGEST // 255, 255, 0, 22, 0, offset=240))
@example(FixedPointAdd(255, LARGEST // 510, 255, LARGEST // 510, 22, 0, offset=-240))
def test_fixed_point_sums_of_every_pair(isa, how):
    """All 65,536 pairs of u8, with multipliers up to the contract's limit: nothing wraps."""
    a, b = (grid.astype(np.uint8).reshape(1, 4, 32, 64, 8) for grid in np.meshgrid(np.arange(256), np.arange(256)))
    result = execute(Add((1, 4, 32, 64, 8), add=how), TARGETS[isa], {"a": a, "b": b})
    np.testing.assert_array_equal(result, fixed_point_add(a, b, how))


@ISAS
def test_float_sums(isa):
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((2, 3, 5, 7, 16)).astype(np.float32) for _ in range(2))
    w = Add((2, 3, 5, 7, 16), "float32", float_epilogue=FloatEpilogue(True, 0.0, 1.0))
    np.testing.assert_array_equal(execute(w, TARGETS[isa], {"a": a, "b": b}), np.clip(a + b, 0, 1))


@ISAS
@pytest.mark.parametrize(("channels", "block"), [(3, 4), (1, 4), (16, 16), (21, 8)])
def test_quantize(isa, channels, block):
    data = np.random.default_rng(0).standard_normal((2, channels, 9, 13)).astype(np.float32) * 3
    data.flat[:6] = [0.05, 0.15, 1e30, -1e30, np.inf, -np.inf]  # ties, and what no int32 holds
    w = Quantize(2, channels, 9, 13, 10.0, 120, block)
    expected = np.clip(np.rint(data * np.float32(10)) + 120, 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(execute(w, TARGETS[isa], {"data": data}), pack.pack_activation(expected, block))


@ISAS
@pytest.mark.parametrize(("channels", "block"), [(3, 4), (16, 16), (21, 8)])
def test_dequantize(isa, channels, block):
    data = np.random.default_rng(0).integers(0, 256, (2, channels, 9, 13)).astype(np.uint8)
    w = Dequantize(2, channels, 9, 13, 0.37, 120, block)
    expected = (data.astype(np.float32) - 120) * np.float32(0.37)
    np.testing.assert_array_equal(execute(w, TARGETS[isa], {"data": pack.pack_activation(data, block)}), expected)


@ISAS
@pytest.mark.parametrize("dtype", ["uint8", "float32", "int32"])
@pytest.mark.parametrize(("source", "target"), [(0, 16), (16, 0), (8, 16), (16, 8), (0, 4), (4, 0)])
def test_change_layout(isa, dtype, source, target):
    data = np.random.default_rng(0).integers(0, 256, (2, 21, 5, 6)).astype(dtype)
    given_ = pack.pack_activation(data, source) if source else data
    if source:
        given_.reshape(2, -1, 5, 6, source)[:, -1, :, :, 21 % source :] = 99  # junk must not spread
    result = execute(ChangeLayout(2, 21, 5, 6, dtype, source, target), TARGETS[isa], {"data": given_})
    np.testing.assert_array_equal(result, pack.pack_activation(data, target) if target else data)
