"""`deburr compare` over a folder of samples in several sizes: one set of figures for all of them."""

from __future__ import annotations

import numpy as np
import pytest
from models import Builder

from deburr.compare import compare, difference
from deburr.ir.errors import DeburrError
from deburr.ir.evaluate import Evaluator
from deburr.ir.model import Model
from deburr.ir.onnx_reader import read
from deburr.ir.samples import load_samples

SIZES = (8, 11)


def _model(factor: float, *, pooled: bool) -> Model:
    """A convolution of images of any size, pooled to scores where asked."""
    builder = Builder()
    x = builder.conv("x", 3, 5, output="" if pooled else "y")
    if pooled:
        builder.node("Flatten", [builder.node("GlobalAveragePool", [x])], "y")
    for tensor in builder.initializers[:1]:
        tensor.raw_data = (np.frombuffer(tensor.raw_data, np.float32) * np.float32(factor)).tobytes()
    dims = ["batch", 5] if pooled else ["batch", 5, None, None]
    return read(builder.model({"x": ["batch", 3, None, None]}, {"y": dims}))


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(0)
    for size in SIZES:
        images = random.standard_normal((7, 3, size, size)).astype(np.float32)
        np.savez(tmp_path / f"{size}.npz", x=images, labels=random.integers(0, 5, 7))
    return tmp_path


def _outputs(model: Model, folder) -> list[np.ndarray]:
    return [Evaluator(model).run({"x": np.load(folder / name)["x"]})["y"] for name in ("11.npz", "8.npz")]


def test_scores_of_all_sizes_count(folder):
    models = _model(1.0, pooled=True), _model(0.5, pooled=True)
    found = compare(*models, folder)
    labels = np.concatenate([np.load(folder / name)["labels"] for name in ("11.npz", "8.npz")])
    (expected,) = [difference("y", *(np.concatenate(_outputs(model, folder)) for model in models), labels)]
    assert found.outputs == (expected,)
    assert found.samples == 14
    assert found.data == str(folder)
    assert expected.candidate_accuracy is not None
    assert compare(*models, load_samples(folder, models[0].graph)).outputs == found.outputs


def test_outputs_that_follow_the_size_are_compared_too(folder):
    models = _model(1.0, pooled=False), _model(0.5, pooled=False)
    (one,) = compare(*models, folder).outputs
    wanted, got = (np.concatenate([array.ravel() for array in _outputs(model, folder)]) for model in models)
    assert one.sqnr_db == pytest.approx(10 * np.log10(np.square(wanted).sum() / np.square(wanted - got).sum()), abs=1e-3)
    assert one.top1_agreement is None
    assert one.reference_accuracy is None


def test_a_folder_in_which_one_file_has_no_labels(folder):
    np.savez(folder / "8.npz", x=np.load(folder / "8.npz")["x"])
    with pytest.raises(DeburrError) as caught:
        compare(_model(1.0, pooled=True), _model(0.5, pooled=True), folder)
    assert str(caught.value) == f"error[E303]: labels are missing, {folder / '8.npz'}: other files of the folder have some"


def test_an_empty_folder(tmp_path):
    with pytest.raises(DeburrError) as caught:
        compare(_model(1.0, pooled=True), _model(0.5, pooled=True), tmp_path)
    assert str(caught.value) == f"error[E305]: no samples, {tmp_path}: the folder holds no .npz"
