"""The demo's Fashion-MNIST network pruned without training: accuracy by MACs, beside Torch-Pruning's L2 at the same MACs.

    python benchmarks/fashion_pruning.py --json build/figures/fashion_pruning.json

The peer (Fang et al. 2023, "DepGraph") runs in a process of its own that needs torch, by another interpreter if need be:

    python -m venv .venv-torch && .venv-torch/bin/pip install torch torch-pruning onnx
    python benchmarks/fashion_pruning.py --peer-python .venv-torch/bin/python
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from figures import table, write_json

FOLDER = Path(__file__).parents[1] / "examples" / "fashion_mnist"
PEER = Path(__file__).with_name("torch_pruning_peer.py")
L2 = "prune-channels{{criterion=l2,ratio={ratio},round_to=1}}"
RECONSTRUCTION = "prune-channels{{criterion=reconstruction,per_cost=true,ratio={ratio},round_to=1}}"
GRADUALLY = "prune-gradually{{ratio={ratio},steps=%d,round_to=1}}"
PRUNING = {
    "l2": L2,
    "l2 + compensate": f"{L2},compensate",
    "reconstruction": RECONSTRUCTION,
    "reconstruction + compensate": f"{RECONSTRUCTION},compensate",
    "gradually, 4 steps": GRADUALLY % 4,
    "gradually, 8 steps": GRADUALLY % 8,
}
COLUMNS = {
    "pruning": "",
    "wanted": ".0%",
    "macs_cut": ".1%",
    "parameters_cut": ".1%",
    "accuracy": ".2%",
    "lost": "+.2f",
    "seconds": ".1f",
}


def pruned(folder: Path, ratios: tuple[float, ...], samples: int | None) -> list[dict[str, Any]]:
    """The original, and a row for each way of pruning and each ratio; `lost` is in points."""
    import numpy as np

    import deburr
    from deburr.inspect import size
    from deburr.ir.fidelity import accuracy

    with np.load(folder / "evaluation.npz") as archive:
        data, labels = {"image": archive["image"][:samples]}, archive["labels"][:samples]
    original = deburr.optimize(folder / "model.onnx", "clean")
    before = size(original)
    best = accuracy(deburr.run(original, data)["logits"], labels)
    rows: list[dict[str, Any]] = [{"pruning": "original", "accuracy": best, "macs": before.macs, "samples": len(labels)}]
    for (name, text), ratio in itertools.product(PRUNING.items(), ratios):
        start = time.perf_counter()
        small = deburr.optimize(original, text.format(ratio=ratio), data=folder / "calibration.npz", seed=0)
        seconds, after = time.perf_counter() - start, size(small)
        found = accuracy(deburr.run(small, data)["logits"], labels)
        rows.append({
            "pruning": name, "wanted": ratio, "macs_cut": 1 - after.macs / before.macs,
            "parameters_cut": 1 - after.parameters / before.parameters, "accuracy": found,
            "lost": 100 * (best - found) if best is not None and found is not None else None, "seconds": seconds,
        })  # fmt: skip
    return rows


def peer(python: str, folder: Path, ratios: tuple[float, ...], samples: int | None) -> list[dict[str, Any]]:
    """Torch-Pruning's rows, from a process of its own; no rows and one line on stderr where it cannot run."""
    command = [python, str(PEER), "--folder", str(folder), "--ratios", *map(str, ratios)]
    if samples is not None:
        command += ["--samples", str(samples)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"without Torch-Pruning: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        return []
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="with model.onnx, calibration.npz, evaluation.npz")
    parser.add_argument("--json", type=Path, default=Path("build/figures/fashion_pruning.json"))
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.3, 0.5, 0.7])
    parser.add_argument("--samples", type=int, default=None, help="score the first N images only")
    parser.add_argument("--peer-python", default=sys.executable, help="an interpreter that has torch and torch-pruning")
    given = parser.parse_args(arguments)
    rows = pruned(given.folder, tuple(given.ratios), given.samples)
    rows += peer(given.peer_python, given.folder, tuple(given.ratios), given.samples)
    write_json(given.json, rows)
    print(f"{table(COLUMNS, rows)}\n\n{rows[0]['samples']} test images; {given.json} holds the figures.")


if __name__ == "__main__":
    main()
