"""Running models: fixed batches, captured values, bounded memory, messages."""

from __future__ import annotations

import numpy as np
import pytest
from models import Builder, conv_chain, perceptron, residual_block, samples
from onnx import helper

from deburr.ir.errors import DeburrError
from deburr.ir.evaluate import Evaluator, capture, fixed_batch
from deburr.ir.onnx_reader import read
from deburr.ir.onnx_writer import to_proto
from deburr.ir.samples import Samples


def test_outputs_and_captured_values():
    proto = residual_block()
    model, data = read(proto), samples(proto)
    add = next(node for node in model.graph.nodes if node.op == "Add")
    weight = next(value.name for value in model.graph.constants)
    left, right = (add.input(index).name for index in (0, 1))
    results = Evaluator(model, capture=[left, right, add.output().name, weight, "x", "y"]).run(data)
    assert np.array_equal(results[left] + results[right], results[add.output().name])
    assert np.array_equal(results["x"], data["x"])
    assert np.array_equal(results[weight], model.graph.value(weight).array)
    assert results["y"].shape == (4, 10)


def test_capture_does_not_change_the_model():
    model = read(residual_block())
    before = to_proto(model).SerializeToString(deterministic=True)
    Evaluator(model, capture=[next(model.graph.nodes).output().name])
    assert to_proto(model).SerializeToString(deterministic=True) == before


def test_optimized_is_close():
    proto = residual_block()
    data = samples(proto)
    plain, fast = (Evaluator(read(proto), optimize=flag, threads=1).run(data)["y"] for flag in (False, True))
    np.testing.assert_allclose(plain, fast, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("count", [1, 3, 4, 7, 8])
def test_fixed_batch_takes_any_number_of_samples(count):
    free, fixed = read(conv_chain()), read(conv_chain(batch=4))
    assert (fixed_batch(free), fixed_batch(fixed)) == (None, 4)
    x = np.random.default_rng(3).standard_normal((count, 3, 8, 8)).astype(np.float32)
    weight = next(value.name for value in fixed.graph.constants)
    results = Evaluator(fixed, capture=[weight]).run({"x": x})
    assert results["y"].shape == (count, 10)
    np.testing.assert_allclose(results["y"], Evaluator(free).run({"x": x})["y"], rtol=1e-4, atol=1e-5)
    assert np.array_equal(results[weight], fixed.graph.value(weight).array)


def test_results_without_a_batch_axis_are_not_joined():
    builder = Builder()
    builder.node("ReduceSum", ["x"], "y", keepdims=0)
    evaluator = Evaluator(read(builder.model({"x": [4, 3]}, {"y": []})))
    assert evaluator.run({"x": np.ones((4, 3), np.float32)})["y"] == 12
    with pytest.raises(DeburrError) as caught:
        evaluator.run({"x": np.ones((5, 3), np.float32)})
    assert str(caught.value) == (
        "error[E108]: the results of several batches cannot be joined: the model's batch is fixed to 4, the shape of 'y' is "
        "[]; give 4 samples at a time"
    )


@pytest.mark.parametrize(("fixed", "sizes"), [("batch", [3, 3, 2]), (2, [2, 2, 2, 2])])
def test_capture_holds_one_batch_and_runs_when_asked(fixed, sizes, monkeypatch):
    runs = []
    original = Evaluator._run

    def counted(self, inputs):
        runs.append(len(inputs["x"]))
        return original(self, inputs)

    monkeypatch.setattr(Evaluator, "_run", counted)
    model = read(conv_chain(batch=fixed))
    names = [next(model.graph.nodes).output().name]
    data = Samples({"x": np.ones((8, 3, 8, 8), np.float32)})
    for number, batch in enumerate(capture(model, names, data, batch=3)):
        assert list(batch) == names
        assert len(batch[names[0]]) == sizes[number]
        assert len(runs) == number + 1
    assert runs == sizes


def test_unknown_value_to_capture():
    with pytest.raises(DeburrError) as caught:
        Evaluator(read(perceptron()), capture=["nothing"])
    assert str(caught.value) == "error[E108]: no value 'nothing' to capture: the main graph has none of this name"


def test_wrong_inputs():
    evaluator = Evaluator(read(perceptron((16, 10))))
    for inputs in ({}, {"x": np.ones((1, 15), np.float32)}, {"x": np.ones((1, 16))}, {"z": np.ones((1, 16), np.float32)}):
        with pytest.raises(DeburrError, match=r"^error\[E108\]: the model cannot be run") as caught:
            evaluator.run(inputs)
        assert "\n" not in str(caught.value)


def test_model_that_onnx_runtime_does_not_take():
    builder = Builder()
    builder.node("Magic", ["x"], "y", domain="acme")
    model = read(
        builder.model({"x": [1]}, {"y": [1]}, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("acme", 1)])
    )
    with pytest.raises(DeburrError, match=r"^error\[E108\]: ONNX Runtime does not take the model.*acme.*Magic") as caught:
        Evaluator(model)
    assert "\n" not in str(caught.value)
