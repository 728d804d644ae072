"""Changing the format of weights that lie in a file of their own takes the memory of the result, and of a tensor or two."""

from __future__ import annotations

import tracemalloc

import numpy as np
import onnx
import pytest
from models import Builder

import deburr
from deburr.passes.core import Context
from deburr.passes.manager import run
from deburr.passes.pipeline import parse

WIDTH, DEPTH = 512, 16
TENSOR = WIDTH * WIDTH * 4  # bytes: 1 MiB, of 16


@pytest.fixture
def model(tmp_path):
    builder, x = Builder(), "x"
    for index in range(DEPTH):
        x = builder.node("MatMul", [x, builder.weight(WIDTH, WIDTH)], "y" if index == DEPTH - 1 else "")
    proto = builder.model({"x": ["n", WIDTH]}, {"y": ["n", WIDTH]})
    onnx.save(proto, tmp_path / "model.onnx", save_as_external_data=True, location="weights", size_threshold=0)
    return deburr.load(tmp_path / "model.onnx")


@pytest.mark.parametrize(
    ("pipeline", "share"), [("quantize-weights", 1 / 4), ("quantize-dynamically", 1 / 4), ("convert-float16", 1 / 2)]
)
def test_the_peak_is_the_result_and_a_few_tensors(model, pipeline, share):
    """What is memory-mapped does not count: it is read while it is needed."""
    tracemalloc.start()
    try:
        run(parse(pipeline), Context(model))
        now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert now < DEPTH * TENSOR * share * 1.1 + 2**20
    assert peak < DEPTH * TENSOR * share + 6 * TENSOR
    assert all(isinstance(value.array, np.ndarray) for value in model.graph.constants)
