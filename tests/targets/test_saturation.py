"""CPUs without VNNI sum pairs of products in 16 bits, where 2 x 255 x 127 saturates: the integers must be the same there."""

import numpy as np
from models import Builder
from program import execute, lowered

from deburr.ir.evaluate import Evaluator
from deburr.ir.onnx_reader import read
from deburr.ir.onnx_writer import to_proto
from deburr.ir.samples import Samples
from deburr.passes import manager, pipeline
from deburr.passes.core import Context


def extremes():
    """Every weight of the first convolution is as large as its channel's integers go."""
    builder = Builder()
    weights = np.sign(builder.random.standard_normal((8, 16, 3, 3))).astype(np.float32)
    weights[0] = 1
    x = builder.node("Relu", [builder.node("Conv", ["x", builder.constant(weights)], pads=[1] * 4)])
    builder.node("Conv", [x, builder.constant(np.ones((4, 8, 1, 1), np.float32))], "y")
    return builder.model({"x": ["n", 16, 6, 6]}, {"y": ["n", 4, 6, 6]})


def test_the_same_bits_with_and_without_vnni():
    data = {"x": np.random.default_rng(0).uniform(0.9, 1, (16, 16, 6, 6)).astype(np.float32)}
    context = Context(read(extremes()), data=Samples(data))
    manager.run(pipeline.parse("clean,quantize{rounding=nearest,observer=minmax}"), context)
    proto, one = to_proto(context.model), {"x": data["x"][:1]}
    given = [execute(lowered(proto, target)[1], one, target)["y"] for target in ("x86-64-v4-vnni", "x86-64-v3", "x86-64-v2")]
    for other in given[1:]:
        np.testing.assert_array_equal(given[0], other)
    exact = Evaluator(read(extremes())).run(one)["y"]
    assert np.abs(given[0] - exact).max() < 0.02 * np.abs(exact).max()
