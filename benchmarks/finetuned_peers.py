"""The demo's Fashion-MNIST network pruned by deburr and by Torch-Pruning's L2, both trained the same way: accuracy by seed.

    apt-get install dataset-fashion-mnist && pip install 'deburr[train]' torch-pruning onnxscript
    python benchmarks/finetuned_peers.py --json build/figures/finetuned_peers.json

Torch-Pruning goes first; deburr then removes at least as many MACs. Both models go through the same `finetune`: the same images
in the same order, loss, optimizer and schedule, BatchNormalization folded. A third row helps the peer: its BatchNormalization
is measured anew on the calibration images before it is folded, as training in torch would do. The test images only score.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch_pruning_peer
from fashion_recovery import FOLDER, training_images
from figures import require, table, write_json

OURS = "clean,prune-channels{{criterion=reconstruction,per_cost=true,ratio={ratio},round_to=1}},compensate"
COLUMNS = {
    "pruning": "", "wanted": ".0%", "macs_cut": ".2%", "parameters_cut": ".1%", "untrained": ".2%", "mean": ".2%",
    "lost": "+.2f", "each": "", "seconds": ".0f",
}  # fmt: skip


def export(model: Any, path: Path) -> None:
    sys.path.insert(0, str(FOLDER))
    require("onnxscript", "pip install onnxscript")
    require("train", "run this from the repository").export(model, path)


class Comparison:
    """Rows of figures; `tuning` is the text of the training."""

    def __init__(self, given: argparse.Namespace, data: Path) -> None:
        import numpy as np

        import deburr
        from deburr.inspect import size

        with np.load(FOLDER / "evaluation.npz") as archive:
            self._images, self._labels = {"image": archive["image"][: given.samples]}, archive["labels"][: given.samples]
        self._given, self._data, self.rows = given, data, list[dict[str, Any]]()
        original = deburr.optimize(FOLDER / "model.onnx", "clean")
        self._before, self._best = size(original), self._accuracy(original)
        self.rows.append({"pruning": "original", "untrained": self._best, "samples": len(self._labels)})
        self._tuning = (
            f'finetune{{epochs={given.epochs},lr={given.lr},precision=bfloat16,batch=128,teacher="{FOLDER}/model.onnx"}}'
        )

    def add(self, name: str, wanted: float, source: Path, pipeline: str) -> float:
        """A row, and the share of the MACs that is gone."""
        import deburr
        from deburr.inspect import size

        start = time.perf_counter()
        pruned = deburr.optimize(source, pipeline, data=FOLDER / "calibration.npz", seed=0)
        now, untrained = size(pruned), self._accuracy(pruned)
        found = [
            self._accuracy(deburr.optimize(pruned, self._tuning, data=self._data, seed=seed)) for seed in self._given.seeds
        ]
        cut = 1 - now.macs / self._before.macs
        self.rows.append({
            "pruning": name, "wanted": wanted, "macs_cut": cut, "parameters_cut": 1 - now.parameters / self._before.parameters,
            "untrained": untrained, "mean": statistics.mean(found), "lost": 100 * (self._best - statistics.mean(found)),
            "each": " ".join(f"{one:.2%}" for one in found), "seconds": time.perf_counter() - start,
        })  # fmt: skip
        write_json(self._given.json, self.rows)
        print(f"{name}, {wanted:.0%}: {self.rows[-1]['each']}", file=sys.stderr, flush=True)
        return cut

    def _accuracy(self, model: Any) -> float:
        import deburr
        from deburr.ir.fidelity import accuracy

        found = accuracy(deburr.run(model, self._images)["logits"], self._labels)
        assert found is not None
        return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=Path("build/figures/finetuned_peers.json"))
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.5, 0.75])
    parser.add_argument("--images", type=int, default=12000, help="how many training images are learnt from")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--lr", type=float, default=0.001)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--samples", type=int, default=None, help="score the first N test images only")
    given = parser.parse_args(arguments)
    for package in ("torch", "torch_pruning", "onnxscript"):
        require(package, "pip install 'deburr[train]' torch-pruning onnxscript")
    network = torch_pruning_peer.network(FOLDER)
    with tempfile.TemporaryDirectory() as folder:
        data, peer = Path(folder) / "training.npz", Path(folder) / "peer.onnx"
        training_images(data, given.images)
        comparison = Comparison(given, data)
        for ratio in given.ratios:
            export(torch_pruning_peer.at_macs(network, ratio), peer)
            cut = comparison.add("Torch-Pruning l2", ratio, peer, "clean")
            comparison.add("Torch-Pruning l2, statistics anew", ratio, peer, "reestimate-batch-norm,clean")
            comparison.add("deburr", ratio, FOLDER / "model.onnx", OURS.format(ratio=cut))
    print(f"{table(COLUMNS, comparison.rows)}\n\n{given.images} training images without labels, {given.epochs} epochs.")


if __name__ == "__main__":
    main()
