"""The demo's Fashion-MNIST network pruned, trained against the original without labels, and quantized: accuracy of each.

    apt-get install dataset-fashion-mnist && pip install 'deburr[train]'
    python benchmarks/fashion_recovery.py --json build/figures/fashion_recovery.json

Trains on training images, without their labels; the test images of evaluation.npz only score.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from figures import require, table, write_json

FOLDER = Path(__file__).parents[1] / "examples" / "fashion_mnist"
PRUNING = "clean,prune-channels{{criterion=reconstruction,per_cost=true,ratio={ratio},round_to=16}},compensate"
INT8 = "calibrate,scale-weights,round-weights,insert-qdq,remove-dead-code"
COLUMNS = {"model": "", "macs_cut": ".1%", "parameters_cut": ".1%", "accuracy": ".2%", "lost": "+.2f", "seconds": ".0f"}


class Score:
    """Rows of the table, each against the original on the test images."""

    def __init__(self, samples: int | None) -> None:
        import numpy as np

        with np.load(FOLDER / "evaluation.npz") as archive:
            self._data, self._labels = {"image": archive["image"][:samples]}, archive["labels"][:samples]
        self.rows: list[dict[str, Any]] = []
        self._before: Any = None

    def add(self, name: str, model: Any, seconds: float, sized: Any = None) -> None:
        """:param sized: the model whose size counts, where `model` is its quantized form."""
        import deburr
        from deburr.inspect import size
        from deburr.ir.fidelity import accuracy

        found, now = accuracy(deburr.run(model, self._data)["logits"], self._labels), size(sized or model)
        assert found is not None
        self._before = self._before or (found, now)
        best, before = self._before
        self.rows.append({
            "model": name, "macs_cut": 1 - now.macs / before.macs, "parameters_cut": 1 - now.parameters / before.parameters,
            "accuracy": found, "lost": 100 * (best - found), "seconds": seconds, "samples": len(self._labels),
        })  # fmt: skip
        print(f"{name}: {found:.2%} after {seconds:.0f} s", file=sys.stderr, flush=True)


def training_images(path: Path, count: int) -> None:
    """The first images of the training set as an .npz, without labels."""
    import numpy as np

    sys.path.insert(0, str(FOLDER))
    train = require("train", "pip install 'deburr[train]', and apt-get install dataset-fashion-mnist")
    images, _ = train.read_split(train.DATA, "train")
    np.savez(path, image=images[:count])


def measure(given: argparse.Namespace, data: Path) -> list[dict[str, Any]]:
    import deburr

    original, calibration, score = FOLDER / "model.onnx", FOLDER / "calibration.npz", Score(given.samples)
    start = time.perf_counter()
    score.add("original", deburr.optimize(original, "clean"), time.perf_counter() - start)
    learn = f'teacher="{original}",batch=128'

    def step(name: str, model: Any, pipeline: str, samples: Path, sized: Any = None) -> Any:
        start = time.perf_counter()
        made = deburr.optimize(model, pipeline, data=samples, seed=given.seed)
        score.add(name, made, time.perf_counter() - start, sized)
        return made

    for ratio in given.ratios:
        name = f"{ratio:.0%} fewer MACs"
        small = step(name, original, PRUNING.format(ratio=ratio), calibration)
        tuning = f"finetune{{epochs={given.epochs},lr={given.lr},precision={given.precision},{learn}}}"
        tuned = step(f"{name}, trained", small, tuning, data)
        step(f"{name}, trained, int8", tuned, INT8, calibration, tuned)
    return score.rows


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=Path("build/figures/fashion_recovery.json"))
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.5, 0.75, 0.9])
    parser.add_argument("--images", type=int, default=60000, help="how many training images are learnt from")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--lr", type=float, default=0.001)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--samples", type=int, default=None, help="score the first N test images only")
    given = parser.parse_args(arguments)
    require("torch", "pip install 'deburr[train]'")
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "training.npz"
        training_images(data, given.images)
        rows = measure(given, data)
    write_json(given.json, rows)
    print(f"{table(COLUMNS, rows)}\n\n{given.images} training images, {given.epochs} epochs; {rows[0]['samples']} test images.")


if __name__ == "__main__":
    main()
