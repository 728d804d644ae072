"""Pruning a model that is quantized already: the integers are those of the original, and so is what they compute."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from models import Builder
from onnx import helper

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


def test_a_weight_that_is_quantized_in_blocks_keeps_its_channels():
    builder = Builder()
    stored, scale = builder.constant(np.ones((4, 8, 1, 1), np.int8)), builder.constant(np.ones((4, 4, 1, 1), np.float32))
    weight = builder.node("DequantizeLinear", [stored, scale], axis=1, block_size=2)
    builder.node("Conv", [builder.conv("x", 3, 8), weight], "y")
    opset = [helper.make_opsetid("", 21)]
    proto = builder.model({"x": [1, 3, 4, 4]}, {"y": [1, 4, 4, 4]}, opset_imports=opset, ir_version=10)
    _, _, analysis = analyse(proto)
    assert not analysis.prunable
    assert "its weight is not a constant: it is quantized in blocks" in [frozen.reason for frozen in analysis.frozen]
