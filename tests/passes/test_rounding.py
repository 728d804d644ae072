"""What goes with second-order rounding: descent over the integers, damping by rows kept apart, sums that make up for a skip."""

from __future__ import annotations

import numpy as np
import onnx
from hypothesis import given, settings
from hypothesis import strategies as st
from models import Builder

from deburr.ir.onnx_writer import to_proto
from deburr.passes.linear.regression import Moments, damped
from deburr.passes.manager import run
from deburr.passes.pipeline import parse
from deburr.passes.quantize.addends import other_addend
from deburr.passes.quantize.arithmetic import affine
from deburr.passes.quantize.damping import DAMPINGS, UNKNOWN, choose_damping
from deburr.passes.quantize.descent import best_scale, descend, refine
from deburr.passes.quantize.second_order import BLOCK, Grid, round_matrix

from .quantizing import optimized, outputs, resnet, sqnr


def problem(seed: int, groups: int, inputs: int, outputs_: int) -> tuple[np.ndarray, np.ndarray, Grid]:
    """Weights, the damped covariance of correlated inputs, and a grid of 4 bits."""
    random = np.random.default_rng(seed)
    weight = random.standard_normal((groups, inputs, outputs_))
    x = random.standard_normal((groups, 3 * inputs, inputs)) @ random.standard_normal((groups, inputs, inputs))
    scale = np.abs(weight).max(axis=1) / 7
    return weight, damped(x.transpose(0, 2, 1) @ x / (3 * inputs), 0.01), Grid.uniform(scale, -8, 7)


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.integers(1, 2 * BLOCK + 3), st.integers(1, 6))
def test_no_output_loses_by_descent(seed, groups, inputs, outputs_):
    weight, metric, grid = problem(seed, groups, inputs, outputs_)
    integers = round_matrix(weight, metric, grid)
    better = descend(weight, metric, integers, grid)
    assert np.array_equal(better, np.rint(better))
    assert better.min() >= -8
    assert better.max() <= 7
    before = grid.loss(weight, metric, integers)
    assert (grid.loss(weight, metric, better) <= before * (1 + 1e-9)).all()
    floor, power = 0.9 * grid.scale, grid.loss(weight, metric, np.zeros_like(weight))
    integers, refined = refine(weight, metric, integers, grid, floor)
    assert (refined.loss(weight, metric, integers) <= before + 1e-6 * power).all()  # scales are rounded to float32
    assert (refined.scale >= floor * (1 - 1e-6)).all()
    assert np.array_equal(refined.scale, refined.scale.astype(np.float32))


def test_descent_and_scales_are_worth_their_time():
    weight, metric, grid = problem(7, 1, 100, 40)
    integers = round_matrix(weight, metric, grid)
    before = grid.loss(weight, metric, integers).sum()
    integers, grid = refine(weight, metric, integers, grid, np.zeros_like(grid.scale))
    assert grid.loss(weight, metric, integers).sum() < 0.95 * before


def test_descent_stops_where_no_single_integer_can_move():
    weight, metric, grid = problem(3, 2, 30, 4)
    integers = round_matrix(weight, metric, grid)
    for _ in range(20):
        integers = descend(weight, metric, integers, grid)
    least = grid.loss(weight, metric, integers)
    for row in range(30):
        for step in (-1, 1):
            moved = integers.copy()
            moved[:, row] = np.clip(moved[:, row] + step, -8, 7)
            assert (grid.loss(weight, metric, moved) >= least * (1 - 1e-9)).all()


def test_the_best_scale_brings_weights_on_a_grid_back():
    _, metric, grid = problem(5, 2, 20, 3)
    integers = np.random.default_rng(0).integers(-8, 8, (2, 20, 3)).astype(float)
    found = best_scale(grid.weights(integers), metric, integers, 1.3 * grid.scale, np.zeros_like(grid.scale))
    assert np.allclose(found, grid.scale, rtol=1e-6)
    nothing = best_scale(grid.weights(integers), metric, np.zeros_like(integers), grid.scale, np.zeros_like(grid.scale))
    assert np.allclose(nothing, grid.scale, rtol=1e-6)


def moments(random: np.random.Generator, rows: int, mixing: np.ndarray, weight: np.ndarray) -> Moments:
    """Of correlated inputs, and of what `weight` makes of them."""
    x, made = random.standard_normal((1, rows, len(mixing))) @ mixing, Moments()
    made.add(x.astype(np.float32), (x @ weight).astype(np.float32))
    return made


def test_few_rows_for_many_inputs_ask_for_more_damping():
    random, inputs = np.random.default_rng(0), 60
    mixing = random.standard_normal((inputs, inputs))
    weight = random.standard_normal((1, inputs, 20))
    grid = Grid.uniform(np.abs(weight).max(axis=1) / 7, -8, 7)
    apart = moments(random, 2000, mixing, weight)
    few, many = (choose_damping(weight, grid, moments(random, rows, mixing, weight), apart) for rows in (40, 20000))
    assert few > many
    assert many == DAMPINGS[0]
    assert choose_damping(weight, grid, apart, Moments()) == UNKNOWN


def skip() -> tuple[object, dict[str, np.ndarray]]:
    """A convolution beside a skip connection."""
    builder = Builder()
    x = builder.node("Relu", [builder.conv("x", 4, 8, 1)])
    builder.node("Add", [builder.conv(x, 8, 8), x], "y")
    proto = builder.model({"x": ["batch", 4, 8, 8]}, {"y": ["batch", 8, 8, 8]})
    return proto, {"x": np.random.default_rng(0).standard_normal((32, 4, 8, 8)).astype(np.float32)}


def test_a_layer_makes_up_for_what_rounding_took_from_the_other_addend():
    """The skip is cut off at a quarter of its range: what its channels lack on average, the convolution beside it adds."""
    proto, data = skip()
    context = optimized(proto, "clean,calibrate,scale-weights", data=data)
    graph = context.model.graph
    relu = next(node for node in graph.nodes if node.op == "Relu")
    scheme = relu.output().qparams
    graph.set_qparams(relu.output(), affine(0.0, 64 * float(scheme.scale), scheme.dtype))
    run(parse("round-weights,insert-qdq"), context)
    expected, found = outputs(proto, data)[0], outputs(to_proto(context.model), data)[0]
    before = outputs(_with_output(proto, relu.output().name), data)[-1]
    cut = (before - np.minimum(before, 64 * scheme.scale)).mean(axis=(0, 2, 3))
    lost = (expected - found).mean(axis=(0, 2, 3))
    assert np.abs(lost).max() < 0.2 * cut.mean()


def _with_output(proto: onnx.ModelProto, name: str) -> onnx.ModelProto:
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    made.graph.output.add(name=name)
    return made


def test_only_settled_addends_count():
    """Of two convolutions that meet in a sum, the first cannot know yet what the second will give."""
    graph = optimized(resnet(), "clean").model.graph
    convolutions = [node for node in graph.nodes if node.op == "Conv"]
    for index, node in enumerate(convolutions):
        addend = other_addend(node, convolutions[index:])
        if addend is not None:
            assert addend in node.output().consumers[0].inputs
            assert addend.producer not in convolutions[index:]
    assert sum(other_addend(node, convolutions[index:]) is not None for index, node in enumerate(convolutions)) == 4


def test_samples_not_seen_gain_from_damping_chosen_by_samples_kept_apart():
    """16 samples for the 64 inputs of a matrix behind a global pooling."""
    builder = Builder()
    x = builder.node("Relu", [builder.conv("x", 3, 64, 3)])
    x = builder.node("Flatten", [builder.node("GlobalAveragePool", [x])])
    builder.gemm(x, 64, 10, "y")
    proto = builder.model({"x": ["batch", 3, 8, 8]}, {"y": ["batch", 10]})
    random = np.random.default_rng(1)
    images = (random.standard_normal((144, 3, 1, 1)) + random.standard_normal((144, 3, 8, 8))).astype(np.float32)
    calibration, held_out = {"x": images[:16]}, {"x": images[16:]}
    expected = outputs(proto, held_out)[0]
    pipeline = "clean,calibrate,scale-weights{bits=4},round-weights{damping=%s},insert-qdq"
    fixed, chosen = (
        sqnr(expected, outputs(to_proto(optimized(proto, pipeline % damping, data=calibration).model), held_out)[0])
        for damping in ("0.001", "auto")
    )
    assert chosen > fixed + 0.5
