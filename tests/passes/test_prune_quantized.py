"""Pruning a model that is quantized already: the integers are those of the original, and so is what they compute."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from models import Builder
from onnx import helper, numpy_helper

from deburr.ir.evaluate import Evaluator
from deburr.ir.onnx_writer import to_proto
from deburr.passes.prune.importance import l2
from deburr.passes.prune.surgery import remove_channels

from .pruning import analyse, mask_consumers, random_keep
from .quantizing import optimized

EXAMPLE = Path(__file__).parents[2] / "examples" / "fashion_mnist"


@pytest.fixture(scope="module")
def fashion() -> onnx.ModelProto:
    """The network of the example as the `int8` recipe leaves it, but for the rounding, which takes a minute."""
    data = dict(np.load(EXAMPLE / "calibration.npz"))
    given = {name: array[:40] for name, array in data.items() if name != "labels"}
    return to_proto(optimized(onnx.load(EXAMPLE / "model.onnx"), "clean,calibrate,scale-weights,insert-qdq", data=given).model)


def test_the_integers_of_a_pruned_int8_model_are_those_of_the_original(fashion):
    model, context, analysis = analyse(fashion)
    assert len(analysis.prunable) == 9
    keep, _ = analysis.repair(random_keep(analysis, np.random.default_rng(0)))
    expected = {}
    for slice_ in analysis.slices:
        array = expected.get(slice_.use, np.array(slice_.constant.array))
        expected[slice_.use] = np.compress(keep[slice_.vector], array, slice_.axis)
    remove_channels(analysis, keep, context)
    assert len(expected) > 60
    for use, array in expected.items():
        assert np.array_equal(use.node.input(use.index).array, array)
    masked, _, again = analyse(fashion)
    mask_consumers(again, keep)
    images = {"image": np.load(EXAMPLE / "evaluation.npz")["image"][:20]}
    # With integer kernels: float32 sums depend on the order of the additions, and may round to the next integer.
    found, reference = (Evaluator(one, threads=1, optimize=True).run(images)["logits"] for one in (model, masked))
    assert np.array_equal(found, reference)
    onnx.checker.check_model(to_proto(model), full_check=True)


def test_the_pass_prunes_an_int8_model(fashion):
    context = optimized(fashion, "prune-channels{ratio=0.5}", data={"image": np.zeros((2, 1, 28, 28), np.float32)})
    assert not [remark for remark in context.remarks if "quantized" in remark.reason]
    assert len(to_proto(context.model).SerializeToString()) < 0.6 * len(fashion.SerializeToString())


def test_importance_reads_integers_times_their_scales():
    """A channel with small integers and a large scale is more important than one with large integers and a small scale."""
    builder = Builder()
    stored = np.array([[10, 10, 10], [100, 100, 100]], np.int8).reshape(2, 3, 1, 1)
    scale = builder.constant(np.array([1.0, 0.01], np.float32))
    weight = builder.node("DequantizeLinear", [builder.constant(stored), scale], axis=0)
    builder.node("Conv", [builder.node("Conv", ["x", weight]), builder.constant(np.ones((4, 2, 1, 1), np.float32))], "y")
    _, context, analysis = analyse(builder.model({"x": [1, 3, 4, 4]}, {"y": [1, 4, 4, 4]}))
    (group,) = analysis.prunable
    first, second = l2(analysis, context)[group.classes]
    assert first > second


def blocks() -> onnx.ModelProto:
    """Convolutions whose weights have scales in blocks of 2 and of 4 (the last one of 2) along their inputs."""
    builder, random = Builder(), np.random.default_rng(0)

    def weight(outputs: int, inputs: int, block: int, *zero_point: str) -> str:
        stored = builder.constant(random.integers(-90, 90, (outputs, inputs, 3, 3)).astype(np.int8))
        shape = (outputs, -(-inputs // block), 3, 3)
        scale = builder.constant((2.0 ** random.integers(-8, -4, shape)).astype(np.float32))
        zeros = [builder.constant(random.integers(-9, 9, shape).astype(np.int8)) for _ in zero_point]
        return builder.node("DequantizeLinear", [stored, scale, *zeros], axis=1, block_size=block)

    x = builder.node("Relu", [builder.node("Conv", ["x", weight(8, 4, 2, "z")], pads=[1] * 4)])
    x = builder.node("Relu", [builder.conv(x, 8, 6)])
    builder.node("Conv", [x, weight(5, 6, 4)], "y", pads=[1] * 4)
    opset = [helper.make_opsetid("", 21)]
    return builder.model({"x": [1, 4, 6, 6]}, {"y": [1, 5, 6, 6]}, opset_imports=opset, ir_version=10)


def test_outputs_of_a_weight_in_blocks_go_and_its_inputs_stay():
    model, context, analysis = analyse(blocks())
    (group,) = analysis.prunable
    assert group.size == 8  # what the first convolution gives; the last one reads 6, in blocks
    assert [(frozen.reason, frozen.axis) for frozen in analysis.frozen if "blocks" in frozen.reason] == [
        ("it is quantized in blocks of them", 1)
    ]
    keep, _ = analysis.repair(random_keep(analysis, np.random.default_rng(0)))
    masked, _, again = analyse(blocks())
    mask_consumers(again, keep)
    remove_channels(analysis, keep, context)
    shapes = {value.static_shape for value in model.graph.constants}
    (left,) = {shape[0] for shape in shapes if shape[1:] == (2, 3, 3)} - {5}
    assert left < 8
    assert {(left, 4, 3, 3), (left, 2, 3, 3), (5, 6, 3, 3), (5, 2, 3, 3)} <= shapes  # integers and their scales
    data = {"x": np.random.default_rng(1).integers(-3, 3, (1, 4, 6, 6)).astype(np.float32)}
    found, reference = (Evaluator(one).run(data)["y"] for one in (model, masked))
    np.testing.assert_allclose(found, reference, rtol=1e-5, atol=1e-5)
    onnx.checker.check_model(to_proto(model), full_check=True)


def test_importance_reads_integers_times_the_scales_of_their_blocks():
    _, _, analysis = analyse(blocks())
    stored, scale, zero_point = map(numpy_helper.to_array, blocks().graph.initializer[:3])
    wanted = (stored.astype(np.float64) - np.repeat(zero_point.astype(np.float64), 2, 1)) * np.repeat(scale, 2, 1)
    slice_ = next(slice_ for slice_ in analysis.slices if slice_.role == "output" and slice_.use.node.op == "DequantizeLinear")
    assert np.array_equal(slice_.array, wanted)
