"""Images of few channels: as planes where an instruction then wastes less of what it multiplies."""

from dataclasses import replace

import numpy as np
import pytest
from kernel_reference import TARGETS
from models import Builder, samples
from program import execute, lowered, quantized

from deburr.ir.evaluate import Evaluator
from deburr.targets.kernels import pack, planes
from deburr.targets.kernels.workload import Conv2d

STEM = Conv2d(1, 3, 224, 224, 64, (7, 7), (2, 2), (3, 3, 3, 3), in_block=4)


@pytest.mark.parametrize(
    ("change", "pays"),
    [
        ({}, True),  # 7 columns are 2 steps of four, three channels: 6 against 7
        ({"kernel": (3, 3)}, True),  # 3 against 3, and smaller
        ({"kernel": (5, 5)}, False),  # 6 against 5
        ({"kernel": (5, 5), "in_channels": 1}, True),
        ({"dilations": (1, 2)}, False),  # what is multiplied together does not lie together
        ({"in_width": 227}, False),  # a row in no vectors
    ],
)
def test_planes_where_they_take_fewer_steps(change, pays):
    workload = replace(STEM, **change)
    assert planes.pays([workload], "avx512vnni") is pays
    assert not planes.pays([workload, replace(workload, kernel=(5, 5), in_channels=3)], "avx512vnni")  # all who read it agree
    assert not planes.pays([workload], "generic")  # no instruction that sums


def test_the_window_is_padded_to_whole_steps_with_zeros():
    weight = np.arange(1, 64 * 3 * 49 + 1).reshape(64, 3, 7, 7).astype(np.int8)
    packed = pack.pack_conv2d(replace(STEM, in_block=1), TARGETS["avx512vnni"], weight)["weight"]
    assert packed.shape == (4, 3, 7, 2, 1, 16, 4)
    rows = packed.transpose(0, 5, 1, 2, 3, 4, 6).reshape(64, 3, 7, 8)
    np.testing.assert_array_equal(rows[..., :7], weight)
    assert not rows[..., 7].any()


@pytest.mark.parametrize(("width", "block"), [(32, 1), (23, 1), (7, 4)])
@pytest.mark.parametrize("target", ["x86-64-v4-vnni", "x86-64-v3"])
def test_a_model_gives_the_integers_of_onnx_runtime(width, block, target):
    """The whole way, from the float image on: in planes, and in the block of four that a row of seven columns stays in."""
    builder = Builder()
    builder.node("Relu", [builder.conv("x", 3, 20, 7, strides=[2, 2])], "y")
    proto = quantized(builder.model({"x": ["batch", 3, 16, width]}, {"y": ["batch", 20, 8, -(-width // 2)]}))
    original, model, _ = lowered(proto, target)
    image = next(node for node in model.graph.nodes if node.op == "Quantize")
    assert image.get("out_block") == block
    data = samples(proto, 1)
    (expected,), (found,) = Evaluator(original).run(data).values(), execute(model, data, target).values()
    step = float(next(node for node in model.graph.nodes if node.op == "Dequantize").get("scale"))
    assert np.abs(found - expected).max() <= 1.01 * step
