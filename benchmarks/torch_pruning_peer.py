"""Torch-Pruning's L2 on the demo's network: rows as JSON on stdout. `fashion_pruning.py` runs it.

The ONNX file keeps BatchNormalization, so its initializers are the network's state; that the two give the same outputs is
checked before anything is pruned.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from figures import require

INSTALL = "pip install torch torch-pruning onnx"
TOLERANCE = 1e-3  # of the logits, relative to their largest


def state(path: Path) -> dict[str, np.ndarray]:
    """Initializers by the network's names; the exporter writes equal vectors once and hands them on by Identity."""
    onnx = require("onnx", INSTALL)
    graph = onnx.load(path).graph
    held = {tensor.name: np.array(onnx.numpy_helper.to_array(tensor)) for tensor in graph.initializer}
    shared = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Identity" and node.input[0] in held}
    return held | {name: held[source] for name, source in shared.items()}


def network(folder: Path) -> Any:
    """The torch network that train.py trains, with the weights of model.onnx."""
    torch = require("torch", INSTALL)
    sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "fashion_mnist"))
    model = require("train", "run this from the repository").network()
    weights = {name: torch.from_numpy(array) for name, array in state(folder / "model.onnx").items()}
    missing = [name for name in model.state_dict() if name not in weights and not name.endswith("num_batches_tracked")]
    if missing:
        raise SystemExit(f"model.onnx lacks {', '.join(missing)}")
    model.load_state_dict(weights, strict=False)
    return model.eval()


def logits(model: Any, images: np.ndarray) -> np.ndarray:
    torch = require("torch", INSTALL)
    with torch.no_grad():
        return np.concatenate([model(part).numpy() for part in torch.from_numpy(images).split(500)])


def check(model: Any, folder: Path, images: np.ndarray) -> None:
    """Torch against the ONNX file, run by ONNX's reference evaluator: a rebuilt network that differs is no peer."""
    reference = require("onnx.reference", INSTALL).ReferenceEvaluator(str(folder / "model.onnx"))
    wanted = reference.run(None, {"image": images})[0]
    error = float(np.abs(logits(model, images) - wanted).max() / np.abs(wanted).max())
    if error > TOLERANCE:
        raise SystemExit(f"the torch network differs from model.onnx by {error:.1e} of the largest logit")


def prune(model: Any, channel_ratio: float) -> Any:
    """A copy without that share of channels, chosen globally by the L2 norm of coupled weights (its README's first example)."""
    torch, pruning = require("torch", INSTALL), require("torch_pruning", INSTALL)
    small = copy.deepcopy(model)
    pruning.pruner.MagnitudePruner(
        small, torch.zeros(1, 1, 28, 28), importance=pruning.importance.MagnitudeImportance(p=2), global_pruning=True,
        pruning_ratio=channel_ratio, ignored_layers=[small[-1]],
    ).step()  # fmt: skip
    return small


def macs(model: Any) -> tuple[int, int]:
    """Multiply-accumulates per sample as deburr counts them (convolutions and the last layer), and parameters."""
    torch = require("torch", INSTALL)
    total = 0

    def count(layer: Any, inputs: Any, output: Any) -> None:
        nonlocal total
        total += layer.weight.numel() * (output[0, 0].numel() if output.ndim == 4 else 1)

    layers = [one for one in model.modules() if isinstance(one, torch.nn.Conv2d | torch.nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    with torch.no_grad():
        model(torch.zeros(1, 1, 28, 28))
    for hook in hooks:
        hook.remove()
    return total, sum(one.numel() for one in model.parameters())


def at_macs(model: Any, ratio: float, steps: int = 12) -> Any:
    """The least pruning whose MACs are at least `ratio` fewer: its option is a share of channels, so by bisection."""
    goal, low, high = (1 - ratio) * macs(model)[0], 0.0, 0.99
    for _ in range(steps):
        middle = (low + high) / 2
        low, high = (low, middle) if macs(prune(model, middle))[0] <= goal else (middle, high)
    return prune(model, high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--ratios", type=float, nargs="+", required=True)
    parser.add_argument("--samples", type=int, default=None)
    given = parser.parse_args()
    require("torch_pruning", INSTALL)
    with np.load(given.folder / "evaluation.npz") as archive:
        images, labels = archive["image"][: given.samples], archive["labels"][: given.samples]
    model = network(given.folder)
    check(model, given.folder, images[:8])
    best, (work, parameters) = float(np.mean(logits(model, images).argmax(1) == labels)), macs(model)
    rows = []
    for ratio in given.ratios:
        start = time.perf_counter()
        small = at_macs(model, ratio)
        seconds, (left, held) = time.perf_counter() - start, macs(small)
        found = float(np.mean(logits(small, images).argmax(1) == labels))
        rows.append({
            "pruning": "Torch-Pruning l2", "wanted": ratio, "macs_cut": 1 - left / work,
            "parameters_cut": 1 - held / parameters, "accuracy": found, "lost": 100 * (best - found), "seconds": seconds,
        })  # fmt: skip
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
