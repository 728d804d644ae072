"""Helpers for before/after tests: run a pipeline on a model written as text, compare texts and numbers."""

from __future__ import annotations

import numpy as np

from deburr.ir.evaluate import Evaluator
from deburr.ir.inference import infer
from deburr.ir.model import Model
from deburr.ir.text import parse_model, print_model
from deburr.ir.verify import verify
from deburr.passes import manager
from deburr.passes.core import Context
from deburr.passes.instruments import VerifyEach
from deburr.passes.pipeline import parse


def model(text: str, opset: int = 17) -> Model:
    """The model of a graph's body, with inferred types; it must be valid."""
    made = parse_model(text if "graph main" in text else f'ir_version 8\nopset "" {opset}\n\ngraph main {{\n{text}\n}}\n')
    infer(made)
    verify(made)
    return made


def run(before: Model, pipeline: str, **given) -> list[str]:
    """Change a model, verified after every pass; the remarks."""
    context = Context(before, **given)
    manager.run(parse(pipeline), context, [VerifyEach()])
    return [str(remark) for remark in context.remarks]


def check(pipeline: str, before: str, after: str, *remarks: str, opset: int = 17, tolerance: float = 1e-5) -> None:
    """`pipeline` turns one text into the other, says exactly `remarks`, computes the same, and has nothing more to do."""
    changed = model(before, opset)
    assert run(changed, pipeline) == list(remarks)
    assert print_model(changed) == print_model(model(after, opset))
    assert_same(model(before, opset), changed, tolerance)
    revision = changed.revision
    run(changed, pipeline)
    assert changed.revision == revision, "a second run changes something"


def unchanged(pipeline: str, text: str, *remarks: str, opset: int = 17) -> None:
    """`pipeline` leaves the model alone and says exactly `remarks`."""
    given = model(text, opset)
    revision = given.revision
    assert run(given, pipeline) == list(remarks)
    assert given.revision == revision


def inputs(given: Model, seed: int = 0, batch: int = 2) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    found = {}
    for value in given.graph.inputs:
        if value.constant is None:
            dims = [dim if isinstance(dim, int) else batch for dim in value.shape]
            found[value.name] = random.standard_normal(dims).astype(value.dtype.numpy)
    return found


def assert_same(one: Model, other: Model, tolerance: float = 1e-5) -> None:
    """The same outputs in ONNX Runtime: names, dtypes, shapes, and numbers relative to the largest."""
    data = inputs(one)
    expected, found = Evaluator(one).run(data), Evaluator(other).run(data)
    assert list(expected) == list(found)
    for name, array in expected.items():
        assert array.dtype == found[name].dtype
        scale = float(np.abs(array.astype(np.float64)).max(initial=0)) or 1.0
        np.testing.assert_allclose(found[name].astype(np.float64), array.astype(np.float64), rtol=0, atol=tolerance * scale)
