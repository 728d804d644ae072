"""Every numbered example runs; the shipped model and data are what they are said to be; the demo writes its report."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import deburr
from deburr.ir.fidelity import accuracy

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
FASHION = EXAMPLES / "fashion_mnist"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
KEYS = [
    "name", "accuracy", "samples", "parameters", "macs", "file_bytes", "ort_ms", "ort_p90_ms", "bundle_ms", "bundle_p90_ms",
]  # fmt: skip

SAYS = {
    "01_optimize.py": r"bytes became \d+: [34]\.\dx smaller",
    "02_compile_and_run.py": "the first test image is a 9, the program says 9",
    "03_pipelines.py": "text:     clean,prune-channels{ratio=0.25}",
    "04_your_own_pass.py": "13 Clip, 0 Relu",
    "05_look_inside.py": "read by Conv, Add",
    "06_compare.py": r"accuracy 9\d\.\d\d% became 9\d\.\d\d%",
}


def run(script: Path, folder: Path, *arguments: str) -> str:
    """What the script prints; TMPDIR is `folder`."""
    done = subprocess.run(
        [sys.executable, str(script), *arguments], cwd=folder, env={**os.environ, "TMPDIR": str(folder)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_numbered_example_is_run_here() -> None:
    assert sorted(SAYS) == sorted(path.name for path in EXAMPLES.glob("[0-9]*.py"))


@pytest.mark.parametrize("name", SAYS)
def test_example(name: str, tmp_path: Path) -> None:
    assert re.search(SAYS[name], run(EXAMPLES / name, tmp_path))
    left = [path.name for path in tmp_path.iterdir()]
    assert set(left) <= {".ses"}, "temporary files stay behind"  # .ses is ONNX Runtime's own


def test_the_network_is_as_accurate_as_it_is_said_to_be() -> None:
    with np.load(FASHION / "evaluation.npz") as evaluation:
        images, labels = evaluation["image"], evaluation["labels"]
    assert len(labels) >= 2000
    scores = deburr.run(FASHION / "model.onnx", {"image": images[:2000]})["logits"]
    share = accuracy(scores, labels[:2000])
    assert share is not None
    assert share >= 0.925


def test_the_files_are_small_and_hold_what_the_demo_reads() -> None:
    files = {path.name: path for path in FASHION.iterdir() if path.suffix in (".onnx", ".npz")}
    assert sorted(files) == ["calibration.npz", "evaluation.npz", "model.onnx"]
    assert sum(path.stat().st_size for path in files.values()) < 12e6
    with np.load(files["calibration.npz"]) as calibration:
        assert {name: array.shape for name, array in calibration.items()} == {"image": (500, 1, 28, 28)}


def test_calibration_images_are_training_images_and_evaluation_images_are_not() -> None:
    if not DEBIAN.is_dir():
        pytest.skip("apt-get install dataset-fashion-mnist: the images to compare with are not here")
    training = {image.tobytes() for image in _images("train")}
    with np.load(FASHION / "calibration.npz") as calibration, np.load(FASHION / "evaluation.npz") as evaluation:
        drawn, unseen = (np.rint(archive["image"][:, 0] * 255).astype(np.uint8) for archive in (calibration, evaluation))
    assert all(image.tobytes() in training for image in drawn)
    np.testing.assert_array_equal(unseen, _images("t10k")[: len(unseen)])
    assert sum(image.tobytes() in training for image in unseen) <= 10  # a few images stand in both of the authors' sets


def _images(split: str) -> np.ndarray:
    raw = gzip.decompress((DEBIAN / f"{split}-images-idx3-ubyte.gz").read_bytes())
    return np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 28, 28)


@pytest.mark.slow
def test_demo(tmp_path: Path) -> None:
    out = run(EXAMPLES / "demo.py", tmp_path, "--out", "demo", "--samples", "500", "--rounds", "5")
    rows = json.loads((tmp_path / "demo" / "report.json").read_text())
    assert [list(row) for row in rows] == [KEYS] * 4
    assert [row["name"] for row in rows] == ["original", "pruned", "int8", "pruned + int8"]
    original, pruned, int8, both = rows
    assert original["file_bytes"] >= 10 * both["file_bytes"]
    assert min(row["accuracy"] for row in rows) >= original["accuracy"] - 0.02
    assert pruned["macs"] == both["macs"] < int8["macs"] == original["macs"]
    assert all(row["samples"] == 500 and row["ort_p90_ms"] >= row["ort_ms"] > 0 < row["bundle_ms"] for row in rows)
    assert all(f"| {row['name']} | {row['accuracy']:.2%} | {row['parameters']} |" in out for row in rows)
