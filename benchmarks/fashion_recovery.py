"""The demo's Fashion-MNIST network pruned, trained against the original without labels, and quantized: accuracy of each.

    apt-get install dataset-fashion-mnist && pip install 'deburr[train]'
    python benchmarks/fashion_recovery.py --json build/figures/fashion_recovery.json

Trains on training images, without their labels; the test images of evaluation.npz only score.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from figures import require
from study import Study

FOLDER = Path(__file__).parents[1] / "examples" / "fashion_mnist"
PRUNING = "clean,prune-channels{{criterion=reconstruction,per_cost=true,ratio={ratio},round_to=16}},compensate"
INT8 = "calibrate,scale-weights,round-weights,insert-qdq,remove-dead-code"


def training_images(path: Path, count: int) -> None:
    """The first images of the training set as an .npz, without labels."""
    import numpy as np

    sys.path.insert(0, str(FOLDER))
    train = require("train", "pip install 'deburr[train]', and apt-get install dataset-fashion-mnist")
    images, _ = train.read_split(train.DATA, "train")
    np.savez(path, image=images[:count])


def measure(given: argparse.Namespace, data: Path) -> Study:
    original, calibration = FOLDER / "model.onnx", FOLDER / "calibration.npz"
    study = Study(
        original, FOLDER / "evaluation.npz", folder=given.out, path=given.json, samples=given.samples, seed=given.seed
    )
    tuning = (
        f'finetune{{epochs={given.epochs},lr={given.lr},precision={given.precision},batch=128,teacher="{original}",'
        f'curve="{given.out}/%s.png"}}'
    )
    for ratio in given.ratios:
        name = f"{ratio:.0%} fewer MACs"
        small = study.step(name, None, PRUNING.format(ratio=ratio), calibration)
        tuned = study.step(f"{name}, trained", small, tuning % f"{ratio:.0%}".rstrip("%"), data)
        study.step(f"{name}, trained, int8", tuned, INT8, calibration)
    return study


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=Path("build/figures/fashion_recovery.json"))
    parser.add_argument("--out", type=Path, default=Path("build/recovery"), help="where models and curves are written")
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.5, 0.75, 0.9])
    parser.add_argument("--images", type=int, default=40000, help="how many training images are learnt from")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--lr", type=float, default=0.001)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--samples", type=int, default=None, help="score the first N test images only")
    given = parser.parse_args(arguments)
    require("torch", "pip install 'deburr[train]'")
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "training.npz"
        training_images(data, given.images)
        study = measure(given, data)
    print(f"{study.table()}\n{given.images} training images without labels, {given.epochs} epochs.")


if __name__ == "__main__":
    main()
