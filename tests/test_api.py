"""The front door from Python."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from models import conv_chain, perceptron, residual_block

import deburr
from deburr.compare import compare, difference
from deburr.ir.fidelity import sqnr_db
from deburr.ir.samples import Samples
from deburr.passes.core import Remark
from deburr.runner import open_runner, run_samples
from deburr.synthetic import synthetic_samples


@pytest.fixture
def path(tmp_path: Path) -> Path:
    onnx.save(residual_block(), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def images(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(seed).standard_normal((count, 3, 8, 8)).astype(np.float32)}


def test_optimize_leaves_the_given_model_alone(path: Path, tmp_path: Path) -> None:
    model = deburr.load(path)
    revision, nodes = model.revision, len(model.graph)
    small = deburr.optimize(model, "clean")
    assert (model.revision, len(model.graph)) == (revision, nodes)
    assert len(small.graph) < nodes
    deburr.save(model, tmp_path / "again.onnx")
    wanted, got = (deburr.run(file, images(3))["y"] for file in (path, tmp_path / "again.onnx"))
    np.testing.assert_array_equal(wanted, got)


def test_clean_keeps_the_numbers(path: Path) -> None:
    wanted = deburr.run(path, images(5))["y"]
    got = deburr.run(deburr.optimize(path, "clean"), images(5))["y"]
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["path", "arrays", "samples"])
def test_calibration_data_in_any_form_gives_the_same_bytes(path: Path, tmp_path: Path, kind: str) -> None:
    np.savez(tmp_path / "c.npz", **images(16))
    forms = {"path": tmp_path / "c.npz", "arrays": images(16), "samples": Samples(images(16))}
    deburr.save(deburr.optimize(path, "int8", data=forms["path"]), tmp_path / "a.onnx")
    deburr.save(deburr.optimize(path, "int8", data=forms[kind]), tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_the_model_says_which_passes_made_it(path: Path) -> None:
    once = deburr.optimize(path, "fold-batch-norm")
    twice = deburr.optimize(once, "prune-channels{ratio=0.25}")
    assert once.metadata["deburr.pipeline"] == "fold-batch-norm"
    assert twice.metadata["deburr.pipeline"] == "fold-batch-norm,prune-channels{ratio=0.25}"


def test_remarks_reach_the_caller(path: Path) -> None:
    remarks: list[Remark] = []
    deburr.optimize(path, "clean,prune-channels{ratio=0.5,round_to=1}", remarks=remarks)
    assert [(remark.pass_name, "it is an output of the graph" in remark.reason) for remark in remarks] == [
        ("prune-channels", True)
    ]


def test_an_unknown_target_is_refused_before_anything_is_read() -> None:
    with pytest.raises(deburr.DeburrError, match=r"^error\[E401\]: no target 'hots': .*; did you mean host\?$"):
        deburr.optimize("there-is-no-such.onnx", "clean", target="hots")


def test_compile_open_run(path: Path, tmp_path: Path) -> None:
    int8 = deburr.optimize(path, "int8", data=images(32))
    deburr.compile(int8, tmp_path / "m.bundle", target="host", threads=1)
    bundle = deburr.open(tmp_path / "m.bundle", threads=2)
    wanted, got = deburr.run(int8, images(7, seed=1))["y"], bundle.run(images(7, seed=1))["y"]
    assert got.shape == (7, 10)
    assert sqnr_db(wanted, got - wanted) > 30
    np.testing.assert_array_equal(deburr.run(tmp_path / "m.bundle", images(7, seed=1))["y"], got)
    manifest = json.loads((tmp_path / "m.bundle" / "manifest.json").read_text())
    assert manifest["pipeline"] == int8.metadata["deburr.pipeline"]
    assert manifest["threads"] == 1

    found = compare(int8, tmp_path / "m.bundle", images(7, seed=1))
    assert [one.output for one in found.outputs] == ["y"]
    assert found.outputs[0].sqnr_db == pytest.approx(sqnr_db(wanted, got - wanted), rel=1e-3)


def test_run_takes_any_number_of_samples_where_the_batch_is_fixed(tmp_path: Path) -> None:
    onnx.save(conv_chain(batch=4), tmp_path / "fixed.onnx")
    onnx.save(conv_chain(), tmp_path / "free.onnx")
    fixed, free = (deburr.run(tmp_path / f"{name}.onnx", images(10))["y"] for name in ("fixed", "free"))
    assert fixed.shape == (10, 10)
    np.testing.assert_allclose(fixed, free, rtol=1e-5, atol=1e-6)


def test_batches_do_not_change_results(path: Path) -> None:
    runner = open_runner(deburr.load(path))
    np.testing.assert_allclose(run_samples(runner, images(9), batch=2)["y"], run_samples(runner, images(9))["y"], rtol=1e-5)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "error[E302]: no data for the input 'x', inputs: it takes x; name an array after each"),
        ({"z": np.zeros(1)}, "error[E302]: no data for the input 'x', inputs: it takes x; name an array after each"),
        (
            {"x": np.zeros((2, 5), np.float32)},
            "error[E303]: shape or dtype does not fit, inputs, array 'x': the program takes float[batch, 16], "
            "the array is float32[2, 5]; "
            "put the samples on the first axis",
        ),
        (
            {"x": np.zeros((2, 16))},
            "error[E303]: shape or dtype does not fit, inputs, array 'x': the program takes float[batch, 16], "
            "the array is float64[2, 16]; "
            "put the samples on the first axis",
        ),
        ({"x": np.zeros((0, 16), np.float32)}, "error[E305]: no samples, inputs: the first axis is empty"),
    ],
)
def test_inputs_that_do_not_fit(tmp_path: Path, inputs: dict[str, np.ndarray], message: str) -> None:
    onnx.save(perceptron(), tmp_path / "p.onnx")
    with pytest.raises(deburr.DeburrError) as caught:
        deburr.run(tmp_path / "p.onnx", inputs)
    assert str(caught.value) == message


def test_synthetic_samples_say_what_they_are(path: Path) -> None:
    samples = synthetic_samples(open_runner(path).inputs, 8, seed=3)
    assert (samples.synthetic, samples.source, len(samples)) == (True, "8 random samples", 8)
    again = synthetic_samples(open_runner(path).inputs, 8, seed=3)
    np.testing.assert_array_equal(samples.inputs["x"], again.inputs["x"])


def test_difference_by_hand() -> None:
    wanted = np.array([[1.0, 0.0], [0.0, 2.0]], np.float32)
    got = np.array([[1.0, 0.5], [2.0, 0.0]], np.float32)
    found = difference("y", wanted, got, np.array([0, 1]))
    # signal 1 + 4, error 0.25 + 4 + 4
    assert found.sqnr_db == pytest.approx(10 * np.log10(5 / 8.25))
    assert (found.max_abs_error, found.top1_agreement) == (2.0, 0.5)
    assert (found.reference_accuracy, found.candidate_accuracy) == (1.0, 0.5)
    assert difference("y", wanted, wanted).sqnr_db == np.inf


def test_comparing_outputs_that_have_no_name_in_common(path: Path, tmp_path: Path) -> None:
    other = residual_block()
    other.graph.output[0].name = other.graph.node[-1].output[0] = "z"
    onnx.save(other, tmp_path / "other.onnx")
    with pytest.raises(
        deburr.DeburrError, match=r"^error\[E302\]: no output in common, .*its outputs are z, the reference's are y$"
    ):
        compare(path, tmp_path / "other.onnx", images(2))
