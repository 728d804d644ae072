"""Convolution kernels against numpy: exact integers on every instruction set, over random shapes."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_reference import EVERY, TARGETS, conv, run_conv

from deburr.targets.kernels import build
from deburr.targets.kernels.workload import Conv2d, FixedPointAdd, FloatEpilogue, Requantize
from deburr.targets.schedules import pipeline
from deburr.targets.schedules.tile import ConvSchedule
from deburr.targets.target import find

QUICK = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
LONG = settings(max_examples=1500, deadline=None, suppress_health_check=list(HealthCheck))
ADD = FixedPointAdd(a_zero=11, a_multiplier=19_000, b_zero=3, b_multiplier=30_123, shift=15, zero_point=7)
ISAS = pytest.mark.parametrize("isa", list(TARGETS))


@st.composite
def convolutions(draw, isa):
    """Random workloads whose kernel fits the image; the blocks are the target's, or others against its habit."""
    block = EVERY[isa].block
    kernel = (draw(st.integers(1, 5)), draw(st.integers(1, 5)))
    dilations = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    pads = tuple(draw(st.integers(0, 3)) for _ in range(4))
    smallest = [max(1, (k - 1) * d + 1 - a - b) for k, d, a, b in zip(kernel, dilations, pads[:2], pads[2:], strict=True)]
    groups = draw(st.sampled_from([1, 1, 1, 2, 3, 8, 17, "depthwise"]))
    inputs, outputs = draw(st.integers(1, 130)), draw(st.integers(1, 130))
    if groups == "depthwise":
        groups, outputs = inputs, inputs
    else:
        inputs, outputs = (max(1, channels // groups) * groups for channels in (inputs, outputs))
    quantized = draw(st.booleans())
    in_block = draw(st.sampled_from([block, block, 4, 16, *([1] if inputs <= 20 else [])]))
    return Conv2d(
        batch=draw(st.integers(1, 3)),
        in_channels=inputs,
        in_height=draw(st.integers(smallest[0], 40)),
        in_width=draw(st.integers(smallest[1], 40)),
        out_channels=outputs,
        kernel=kernel,
        strides=(draw(st.integers(1, 3)), draw(st.integers(1, 3))),
        pads=pads,
        dilations=dilations,
        groups=groups,
        in_block=in_block,
        out_block=draw(st.sampled_from([block, block, 16])),
        data_zero_point=draw(st.sampled_from([0, 0, 1, 128, 255])),
        requantize=Requantize(
            draw(st.sampled_from([0, 3, 128])), draw(st.sampled_from([0, 3])), draw(st.sampled_from([200, 255]))
        )
        if quantized
        else None,
        add=ADD if quantized and draw(st.booleans()) else None,
    )


def random_arguments(w, seed):
    rng = np.random.default_rng(seed)
    data = rng.integers(0, 256, (w.batch, w.in_channels, w.in_height, w.in_width)).astype(np.uint8)
    weight = rng.integers(-128, 128, (w.out_channels, w.in_channels // w.groups, *w.kernel)).astype(np.int8)
    bias = rng.integers(-(2**20), 2**20, w.out_channels).astype(np.int32)
    taps = weight[0].size
    # About a third of the outputs saturate; a plain 1.0 shows the accumulators themselves.
    scale = rng.uniform(0.5, 2, w.out_channels) / (74 * 74 * taps**0.5)
    multiplier = np.ones(w.out_channels, np.float32) if w.requantize is None else scale.astype(np.float32)
    residual = rng.integers(0, 256, (w.batch, w.out_channels, w.out_height, w.out_width)).astype(np.uint8)
    return data, weight, bias, multiplier, residual if w.add else None


def check_exact(w, target, seed, schedule=None):
    arguments = random_arguments(w, seed)
    np.testing.assert_array_equal(run_conv(w, target, *arguments, schedule=schedule), conv(w, *arguments))


@ISAS
@QUICK
@given(data=st.data())
def test_random_shapes_are_exact(isa, data):
    check_exact(data.draw(convolutions(isa)), TARGETS[isa], data.draw(st.integers(0, 99)))


@pytest.mark.slow
@ISAS
@LONG
@given(data=st.data())
def test_many_random_shapes_are_exact(isa, data):
    check_exact(data.draw(convolutions(isa)), TARGETS[isa], data.draw(st.integers(0, 99)))


@ISAS
def test_extreme_values_do_not_saturate(isa):
    """255 x -128 in every tap: vpmaddubsw, or the saturating vpdpbusds, would give something else."""
    block = TARGETS[isa].block
    w = Conv2d(1, 130, 5, 5, 20, (3, 3), pads=(1, 1, 1, 1), in_block=block, out_block=block)
    data, weight = np.full((1, 130, 5, 5), 255, np.uint8), np.full((20, 130, 3, 3), -128, np.int8)
    weight[10:] = 127
    bias, one = np.zeros(20, np.int32), np.ones(20, np.float32)
    np.testing.assert_array_equal(run_conv(w, TARGETS[isa], data, weight, bias, one), conv(w, data, weight, bias, one))


@ISAS
@pytest.mark.parametrize(
    "tile", [ConvSchedule(), ConvSchedule(1, 3, 2, 5, 2, 1), ConvSchedule(2, 2, 3, 2, 1, 3, parallel=False)]
)
def test_any_tile_gives_the_same_bits(isa, tile):
    """Tiles that divide nothing: the surplus rows, columns and images are computed and dropped."""
    w = Conv2d(
        3, 20, 11, 13, 96, (3, 3), (1, 1), (1, 0, 2, 1), in_block=16, out_block=16, data_zero_point=9, requantize=Requantize(5)
    )
    check_exact(w, TARGETS[isa], 1, tile)


@ISAS
@pytest.mark.parametrize("kernel", [(3, 1), (1, 3), (1, 1)])
def test_a_depthwise_window_one_element_wide(isa, kernel):
    """TVM drops loops of one turn unless told not to, and the schedule then finds other loops than it thinks."""
    w = Conv2d(1, 33, 9, 4, 33, kernel, (2, 3), (0, 1, 2, 2), groups=33, requantize=Requantize(1))
    check_exact(replace(w, in_block=TARGETS[isa].block, out_block=TARGETS[isa].block), TARGETS[isa], 0)


def test_a_gigantic_product_saturates():
    w = Conv2d(1, 16, 1, 1, 16, (1, 1), requantize=Requantize(100))
    data, weight = np.full((1, 16, 1, 1), 255, np.uint8), np.full((16, 16, 1, 1), 127, np.int8)
    weight[8:] = -128
    bias, multiplier = np.zeros(16, np.int32), np.full(16, 1e30, np.float32)
    result = run_conv(w, TARGETS["avx512vnni"], data, weight, bias, multiplier)
    assert result.ravel().tolist() == [255] * 8 + [0] * 8


def test_ties_go_to_even():
    w = Conv2d(1, 1, 1, 6, 1, (1, 1), in_block=4, requantize=Requantize(0))
    data = np.array([[[[1, 2, 3, 4, 5, 6]]]], np.uint8)
    one, zero, half = np.ones((1, 1, 1, 1), np.int8), np.zeros(1, np.int32), np.array([0.5], np.float32)
    assert run_conv(w, TARGETS["avx512vnni"], data, one, zero, half).ravel().tolist() == [0, 1, 2, 2, 2, 3]


def test_avx_vnni_multiplies_in_one_instruction():
    """AVX2 widens to 16 bits first; a CPU without AVX-512 that has vpdpbusd must not."""
    target = find("alderlake")
    kernel = build.kernel(Conv2d(1, 16, 4, 4, 16, (3, 3), in_block=8, out_block=8), target)
    library = pipeline.library(kernel.function, target)
    text = library.mod.inspect_source("asm")
    assert "vpdpbusd\t%ymm" in text
    assert "vpmaddwd" not in text
    assert "%zmm" not in text


FLOAT_SHAPES = [
    Conv2d(1, 20, 13, 13, 40, (3, 3), pads=(1, 1, 1, 1), dtype="float32", float_epilogue=FloatEpilogue(True, 0.0)),
    Conv2d(2, 35, 9, 7, 17, (1, 1), (2, 2), dtype="float32", float_epilogue=FloatEpilogue(low=0.0, high=6.0)),
    Conv2d(2, 33, 1, 1, 130, (1, 1), dtype="float32"),
    Conv2d(1, 3, 9, 8, 17, (5, 3), (2, 1), (2, 1, 1, 0), dtype="float32"),
    Conv2d(1, 48, 10, 10, 48, (5, 3), (1, 2), (2, 1, 2, 1), groups=48, dtype="float32"),
    Conv2d(1, 24, 8, 8, 36, (3, 3), pads=(2, 2, 2, 2), dilations=(2, 2), groups=4, dtype="float32"),
]


@ISAS
@pytest.mark.parametrize("w", FLOAT_SHAPES, ids=lambda w: f"{w.in_channels}to{w.out_channels}g{w.groups}")
def test_float_is_close(isa, w):
    block = TARGETS[isa].block
    w, rng = replace(w, in_block=min(block, w.in_channels), out_block=block), np.random.default_rng(0)
    data = rng.standard_normal((w.batch, w.in_channels, w.in_height, w.in_width)).astype(np.float32)
    weight = rng.standard_normal((w.out_channels, w.in_channels // w.groups, *w.kernel)).astype(np.float32)
    bias = rng.standard_normal(w.out_channels).astype(np.float32)
    wants_residual = w.float_epilogue is not None and w.float_epilogue.residual
    shape = (w.batch, w.out_channels, w.out_height, w.out_width)
    residual = rng.standard_normal(shape).astype(np.float32) if wants_residual else None
    result = run_conv(w, TARGETS[isa], data, weight, bias, residual=residual)
    np.testing.assert_allclose(result, conv(w, data, weight, bias, residual=residual), rtol=1e-4, atol=1e-4)
