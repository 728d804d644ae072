"""The nine graphs of ONNX's light zoo with random weights, pruned by half: how much work goes, and how exact the result is.

    python benchmarks/light_models.py [--ratio 0.5] [--json build/light_models.json] [NAME …]

The weights are drawn anew (the graphs come with constant ones), `prune-channels` prunes the model, and its outputs are
compared with those of the original whose consumers' weight slices are zero.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from deburr.ir.evaluate import Evaluator
from deburr.ir.model import Model
from deburr.ir.onnx_reader import read
from deburr.passes import registry
from deburr.passes.analysis.channels import channels
from deburr.passes.analysis.cost import cost
from deburr.passes.clean.fold_constants import FoldConstants
from deburr.passes.clean.raise_opset import RaiseOpset
from deburr.passes.clean.remove_dead_code import RemoveDeadCode
from deburr.passes.core import Context
from deburr.passes.manager import run_pass
from deburr.passes.prune.budget import Ledger, Limits, choose
from deburr.passes.prune.surgery import remove_channels

FOLDER = Path(onnx.__file__).parent / "backend/test/data/light"
NAMES = tuple(sorted(path.stem.removeprefix("light_") for path in FOLDER.glob("light_*.onnx")))


def load(name: str) -> Context:
    """The graph at opset 13, folded, with weights from a seeded generator that keep activations at their size."""
    context = Context(read(onnx.load(FOLDER / f"light_{name}.onnx")))
    for step in (RaiseOpset(), FoldConstants(limit=1 << 30)):
        run_pass(step, context)
    graph = context.model.graph
    # A Softmax would hide differences: the last layer itself is compared.
    last = [value.producer for value in graph.outputs]
    graph.set_outputs([node.input(0) for node in last if node is not None and node.op == "Softmax"] or graph.outputs)
    run_pass(RemoveDeadCode(), context)
    random = np.random.default_rng(0)
    for value in context.model.graph.constants:
        array = value.array
        if array is None or array.dtype != np.float32 or array.size < 2:
            continue
        uses = {(use.node.op, use.index) for use in value.uses}
        if ("BatchNormalization", 4) in uses or ("BatchNormalization", 1) in uses:
            made = random.uniform(0.5, 1.5, array.shape)
        else:
            made = random.standard_normal(array.shape) * (0.1 if array.ndim == 1 else (2 / array[0].size) ** 0.5)
        context.model.graph.set_constant(value, made.astype(np.float32))
    return context


def outputs(model: Model) -> list[Any]:
    """What the last layer before Softmax gives, and what the model gives, on a seeded image."""
    data = {
        value.name: np.random.default_rng(1)
        .standard_normal([int(dim or 1) for dim in value.static_shape or ()])
        .astype(np.float32)
        for value in model.graph.inputs
    }
    return list(Evaluator(model, threads=2).run(data).values())


def measure(name: str, ratio: float) -> dict[str, Any]:
    """Prune one graph as `prune-channels` does, and compare with the masked original."""
    context, original = load(name), load(name)
    graph = context.model.graph
    start = time.perf_counter()
    analysis = channels(graph, context)
    seconds, before = time.perf_counter() - start, cost(graph, context)
    scores = registry.criteria().find("l2", "E203", "criterion", "this script")(analysis, context)
    wanted = choose(analysis, Ledger(analysis, before), scores, Limits(ratio, "macs", 8, 1))
    keep, refused = analysis.repair(wanted, scores)
    remove_channels(analysis, keep, context)
    for slice_ in channels(original.model.graph, original).slices:
        if slice_.role == "input" and slice_.vector is not None:
            array = np.array(slice_.constant.array)
            array[(slice(None),) * slice_.axis + (np.flatnonzero(~keep[slice_.vector]),)] = 0
            slice_.constant.graph.set_constant(slice_.constant, array)
    error = max(
        float(np.abs(found - expected).max() / (np.abs(expected).max() + 1e-30))
        for found, expected in zip(outputs(context.model), outputs(original.model), strict=True)
    )
    after = cost(graph, context)
    return {
        "model": name, "nodes": len(graph), "analysis_s": round(seconds, 2), "groups": len(analysis.groups),
        "prunable": len(analysis.prunable), "refused": len(refused), "macs_before": before.total_macs,
        "macs_after": after.total_macs, "macs_cut": round(1 - after.total_macs / before.total_macs, 4), "relative_error": error,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", default=NAMES, metavar="NAME")
    parser.add_argument("--ratio", type=float, default=0.5)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows = []
    for name in given.names:
        rows.append(measure(name, given.ratio))
        print("  ".join(f"{key}={value}" for key, value in rows[-1].items()), flush=True)
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
