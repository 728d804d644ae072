"""Second-order rounding: never worse than the nearest integers where inputs are correlated, the same where they are not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import Builder, conv_chain, perceptron

from deburr.ir.errors import DeburrError
from deburr.ir.onnx_reader import read
from deburr.ir.onnx_writer import to_proto
from deburr.passes.core import Context
from deburr.passes.linear.regression import damped
from deburr.passes.manager import run
from deburr.passes.pipeline import parse
from deburr.passes.quantize.second_order import Grid, round_matrix

from .quantizing import optimized, outputs, sqnr

NEAREST = "clean,calibrate,scale-weights,insert-qdq"
ROUNDED = "clean,calibrate,scale-weights,round-weights,insert-qdq"


def layer(seed: int, groups: int, inputs: int, outputs_: int, factors: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights, the covariance of inputs that a few factors explain, and a coarse step for each output."""
    random = np.random.default_rng(seed)
    weight = random.standard_normal((groups, inputs, outputs_))
    x = random.standard_normal((groups, 400, factors)) @ random.standard_normal((groups, factors, inputs))
    x += 0.1 * random.standard_normal(x.shape)
    return weight, x.transpose(0, 2, 1) @ x / 400, np.abs(weight).max(axis=1, keepdims=True) / 7


def grid(scale: np.ndarray, largest: int) -> Grid:
    return Grid(scale, np.full_like(scale, -largest), np.full_like(scale, largest))


def loss(weight: np.ndarray, integers: np.ndarray, covariance: np.ndarray, scale: np.ndarray) -> float:
    error = weight - integers * scale
    return float(np.einsum("gio,gij,gjo->", error, covariance, error))


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(16, 40), st.integers(8, 16))
def test_correlated_inputs_lose_less(seed, groups, inputs, outputs_):
    weight, covariance, scale = layer(seed, groups, inputs, outputs_, factors=3)
    rounded = round_matrix(weight, damped(covariance, 0.01), grid(scale, 7))
    nearest = np.clip(np.rint(weight / scale), -7, 7)
    assert np.array_equal(rounded, np.rint(rounded))
    assert np.abs(rounded).max() <= 7
    assert loss(weight, rounded, covariance, scale) < 0.5 * loss(weight, nearest, covariance, scale)


@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.integers(1, 20), st.integers(1, 8))
def test_independent_inputs_take_the_nearest(seed, groups, inputs, outputs_):
    weight, _, scale = layer(seed, groups, inputs, outputs_, factors=1)
    variances = np.random.default_rng(seed).uniform(0.1, 9, (groups, inputs))
    covariance = variances[:, :, None] * np.eye(inputs)
    rounded = round_matrix(weight, damped(covariance, 0.01), grid(scale, 7))
    assert np.array_equal(rounded, np.clip(np.rint(weight / scale), -7, 7))


def test_groups_do_not_meet():
    weight, covariance, scale = layer(0, 3, 12, 5, factors=2)
    together = round_matrix(weight, damped(covariance, 0.01), grid(scale, 127))
    for group in range(3):
        alone = round_matrix(
            weight[group : group + 1], damped(covariance[group : group + 1], 0.01), grid(scale[group : group + 1], 127)
        )
        assert np.array_equal(together[group], alone[0])


def correlated_images() -> tuple[object, dict[str, np.ndarray]]:
    """A chain with a depthwise layer on images whose channels are nearly the same: rounding errors add up there."""
    builder = Builder()
    x = builder.node("Relu", [builder.conv("x", 8, 16)])
    x = builder.node("Relu", [builder.conv(x, 16, 16, group=16)])
    builder.conv(x, 16, 6, 1, "y")
    proto = builder.model({"x": ["batch", 8, 10, 10]}, {"y": ["batch", 6, 10, 10]})
    random = np.random.default_rng(1)
    images = random.standard_normal((64, 1, 10, 10)) + 0.05 * random.standard_normal((64, 8, 10, 10)) + 2
    return proto, {"x": images.astype(np.float32)}


def test_a_network_comes_nearer_to_its_float_self():
    proto, data = correlated_images()
    calibration, held_out = {"x": data["x"][:48]}, {"x": data["x"][48:]}
    expected = outputs(proto, held_out)[0]
    nearest, rounded = (
        sqnr(expected, outputs(to_proto(optimized(proto, pipeline, data=calibration).model), held_out)[0])
        for pipeline in (NEAREST, ROUNDED)
    )
    assert rounded > nearest + 1  # decibels; the rounding of activations bounds what is to be had


def test_a_second_run_changes_nothing_and_the_seed_decides():
    proto = conv_chain()
    context = optimized(proto, "clean,calibrate,scale-weights,round-weights{rows=500}")
    revision = context.model.revision
    run(parse("round-weights{rows=500}"), context)
    assert context.model.revision == revision
    again = optimized(proto, "clean,calibrate,scale-weights,round-weights{rows=500}")
    assert to_proto(again.model).SerializeToString(deterministic=True) == to_proto(context.model).SerializeToString(
        deterministic=True
    )


def test_layers_that_cannot_be_rounded_say_why():
    builder = Builder()
    weight = builder.weight(6, 6)
    x = builder.node("Gemm", ["x", weight])
    x = builder.node("Gemm", [x, weight])
    builder.gemm(x, 6, 3, "y")
    context = optimized(builder.model({"x": ["batch", 6]}, {"y": ["batch", 3]}), ROUNDED)
    reasons = {remark.reason for remark in context.remarks}
    assert "its weights are rounded to the nearest: its weight is computed or shared" in reasons


def test_options_out_of_range():
    with pytest.raises(DeburrError) as caught:
        optimized(perceptron(), "round-weights{samples=0}")
    assert str(caught.value).startswith("error[E203]: samples, rows or damping is out of range")
    with pytest.raises(DeburrError, match="E206"):
        run(parse("round-weights"), Context(read(perceptron())))
