"""The demo's Fashion-MNIST network rounded with and without training in between: accuracy by bits of weights and activations.

    apt-get install dataset-fashion-mnist && pip install 'deburr[train]'
    python benchmarks/fashion_qat.py --json build/figures/fashion_qat.json

W4A4 means every layer, also the first and the last one, and the image itself. `--model` names another model to start from,
build/recovery/75-fewer-MACs-trained.onnx for instance, which learns from the original all the same. Trains on training images,
without their labels; the test images of evaluation.npz only score.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from fashion_recovery import FOLDER, training_images
from figures import require
from study import Study

# What notes the scales, with `smallest=0` where no layer is to keep 8 bits.
NOTES = {
    "W8A8": "calibrate,scale-weights",
    "W4A8": "calibrate,scale-weights{bits=4,smallest=0}",
    "W4A4": "calibrate{bits=4},scale-weights{bits=4,smallest=0}",
}
END = "insert-qdq,remove-dead-code"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=Path("build/figures/fashion_qat.json"))
    parser.add_argument("--out", type=Path, default=Path("build/qat"), help="where models are written")
    parser.add_argument("--model", type=Path, default=FOLDER / "model.onnx", help="what is rounded")
    parser.add_argument("--schemes", choices=NOTES, nargs="+", default=list(NOTES))
    parser.add_argument("--images", type=int, default=12000, help="how many training images are learnt from")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--lr", type=float, default=0.0005)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--samples", type=int, default=None, help="score the first N test images only")
    given = parser.parse_args(arguments)
    require("torch", "pip install 'deburr[train]'")
    original, calibration = FOLDER / "model.onnx", FOLDER / "calibration.npz"
    study = Study(
        original, FOLDER / "evaluation.npz", folder=given.out, path=given.json, samples=given.samples, seed=given.seed
    )
    start = study.step("to be rounded", given.model, "clean", calibration)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "training.npz"
        training_images(data, given.images)
        for scheme in given.schemes:
            notes = NOTES[scheme]
            study.step(f"{scheme}, rounded", start, f"{notes},round-weights,{END}", calibration)
            training = f'qat{{epochs={given.epochs},lr={given.lr},batch=128,teacher="{original}"}}'
            study.step(f"{scheme}, trained", start, f"{notes},{training},{END}", data)
    print(f"{study.table()}\n{given.images} training images without labels, {given.epochs} epochs.")


if __name__ == "__main__":
    main()
