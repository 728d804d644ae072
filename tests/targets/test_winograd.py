"""Winograd convolutions: the matrices are exact, the kernels near the plain convolution, and taken only where they pay."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from emulated import TARGETS as ARM
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from kernel_reference import TARGETS, conv, run_conv
from test_kernels_arm import run_all

from deburr.targets.kernels import winograd
from deburr.targets.kernels.workload import Conv2d, FloatEpilogue, Requantize

QUICK = settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
IMAGE = Conv2d(1, 64, 56, 56, 64, (3, 3), pads=(1, 1, 1, 1), dtype="float32")


@pytest.mark.parametrize("size", [2, 4])
def test_the_matrices_are_exact(size):
    """``A^T ((G g) * (B^T d))`` is the sum over three taps, in fractions."""
    rng = np.random.default_rng(0)
    g, d = ([Fraction(int(value)) for value in rng.integers(-9, 9, count)] for count in (3, size + 2))
    output, weight, data = (np.array(matrix, object) for matrix in winograd.matrices(size))
    given = output @ ((weight @ np.array(g, object)) * (data @ np.array(d, object)))
    assert given.tolist() == [sum(d[i + k] * g[k] for k in range(3)) for i in range(size)]


@st.composite
def convolutions(draw):
    """Shapes that Winograd is chosen for: odd channels and sizes, borders of any width."""
    w = Conv2d(
        draw(st.integers(1, 3)), draw(st.integers(24, 100)), draw(st.integers(3, 24)), draw(st.integers(3, 24)),
        draw(st.integers(24, 100)), (3, 3), pads=tuple(draw(st.integers(0, 2)) for _ in range(4)), dtype="float32",
        float_epilogue=draw(st.sampled_from([None, FloatEpilogue(low=0.0), FloatEpilogue(True, 0.0, 6.0)])),
    )  # fmt: skip
    assume(winograd.tile_size(w, "avx2"))
    return w


def random_arguments(w, seed):
    """As `conv` takes them: data, weight, bias, multiplier, residual."""
    rng = np.random.default_rng(seed)
    data = rng.standard_normal((w.batch, w.in_channels, w.in_height, w.in_width)).astype(np.float32)
    weight = rng.standard_normal((w.out_channels, w.in_channels, 3, 3)).astype(np.float32)
    bias = rng.standard_normal(w.out_channels).astype(np.float32)
    shape = (w.batch, w.out_channels, w.out_height, w.out_width)
    wants = w.float_epilogue is not None and w.float_epilogue.residual
    return data, weight, bias, None, rng.standard_normal(shape).astype(np.float32) if wants else None


def assert_near(w, arguments, result):
    """By the largest sum: behind the clamp there is none."""
    largest = np.abs(conv(replace(w, float_epilogue=None), *arguments)).max()
    np.testing.assert_allclose(result, conv(w, *arguments), rtol=0, atol=1e-5 * largest)


@pytest.mark.parametrize("isa", list(TARGETS))
@QUICK
@given(w=convolutions(), seed=st.integers(0, 99))
def test_random_shapes_are_near_the_plain_convolution(isa, w, seed):
    block = TARGETS[isa].block
    w = replace(w, in_block=block, out_block=block)
    arguments = random_arguments(w, seed)
    assert_near(w, arguments, run_conv(w, TARGETS[isa], *arguments))


def test_emulated_aarch64():
    shapes = [
        Conv2d(1, 40, 15, 12, 70, (3, 3), pads=(1, 1, 1, 1), dtype="float32", float_epilogue=FloatEpilogue(True, 0.0)),
        Conv2d(2, 96, 8, 8, 100, (3, 3), pads=(1, 1, 1, 1), dtype="float32"),
    ]
    assert sorted(winograd.tile_size(w, "neon") for w in shapes) == [2, 4]
    cases = [(w, random_arguments(w, 0), None) for w in shapes]
    for (w, arguments, _), result in zip(cases, run_all(cases, ARM["neon"]), strict=True):
        assert_near(w, arguments, result)


def test_taken_only_where_it_pays():
    deep = replace(IMAGE, in_channels=512, out_channels=512, in_height=7, in_width=7)
    others = {
        "integers stay exact": replace(IMAGE, dtype="uint8", requantize=Requantize(0)),
        "stride": replace(IMAGE, strides=(2, 2)),
        "dilation": replace(IMAGE, dilations=(2, 2)),
        "groups": replace(IMAGE, groups=4),
        "kernel": replace(IMAGE, kernel=(5, 5), pads=(2, 2, 2, 2)),
        "three channels": replace(IMAGE, in_channels=3, in_block=4),
        "more weights from memory than products saved": deep,
    }
    assert {why: winograd.tile_size(w, "avx2") for why, w in others.items()} == dict.fromkeys(others, 0)
    assert winograd.tile_size(IMAGE, "avx2") == 4
    assert winograd.tile_size(IMAGE, "tensorcore") == 0
    assert winograd.tile_size(replace(IMAGE, in_channels=256, out_channels=256, in_height=14, in_width=14), "avx2") == 2
    assert winograd.tile_size(replace(IMAGE, batch=8), "avx2") == 4
