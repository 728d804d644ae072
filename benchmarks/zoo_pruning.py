"""One exported model pruned by half: how much work goes, how exact the result is, and what keeps the rest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from deburr.ir.evaluate import Evaluator
from deburr.ir.model import Model
from deburr.ir.onnx_reader import read
from deburr.passes import manager, registry
from deburr.passes.analysis.channels import channels
from deburr.passes.analysis.classes import Mask
from deburr.passes.analysis.cost import cost
from deburr.passes.analysis.groups import Channels
from deburr.passes.analysis.walk import ChannelOptions
from deburr.passes.core import Context
from deburr.passes.pipeline import parse
from deburr.passes.prune.budget import Ledger, Limits, choose
from deburr.passes.prune.scope import compare_within
from deburr.passes.prune.surgery import remove_channels

COLUMNS = {
    "model": "", "nodes": "d", "groups": "d", "prunable": "d", "macs_cut": ".1%", "most": ".1%", "error": ".1e", "noise": ".1e",
    "seconds": ".1f", "peak_mb": "d", "verdict": "",
}  # fmt: skip
ENOUGH = 0.3  # of the MACs, for a model that prunes
EXACT = 1e-4  # relative to the largest element of an output

_PRODUCTS = ("MatMul", "Gemm", "Einsum")


def measure(file: Path, ratio: float, options: ChannelOptions) -> dict[str, Any]:
    """Prune as `prune-channels{scope=group,round_to=1}` does, and compare with the masked original on random input.

    `most` is the share of the MACs that goes where every group keeps a single channel; `error` and `noise` are relative to the
    largest element of each output, and noise is what ONNX Runtime's own optimizations change in the masked original.
    """
    context = _load(file)
    graph = context.model.graph
    before, analysis = cost(graph, context), channels(graph, context, options)
    ledger, scores = Ledger(analysis, before), registry.criteria().find("l2", "E203", "criterion", "zoo")(analysis, context)
    scores = compare_within(analysis, scores, "group")
    most, _ = analysis.repair(choose(analysis, ledger, scores, Limits(0.999999, "macs", 1, 1)), scores)
    keep, refused = analysis.repair(choose(analysis, ledger, scores, Limits(ratio, "macs", 1, 1)), scores)
    row = {
        "nodes": len(graph), "groups": len(analysis.groups), "prunable": len(analysis.prunable), "refused": len(refused),
        "macs": before.total_macs, "most": 1 - ledger.macs(most) / max(1, before.total_macs),
        "reasons": _reasons(analysis, before.total_macs),
    }  # fmt: skip
    masked = masked_original(file, keep, options)
    expected = Evaluator(masked, threads=2).run(_inputs(masked))
    remove_channels(analysis, keep, context)
    row["macs_cut"] = round(1 - cost(graph, context).total_macs / max(1, before.total_macs), 4)
    found = Evaluator(context.model, threads=2).run(_inputs(context.model))
    row["error"] = _error(found, expected)
    if not row["error"] <= EXACT:
        row["noise"] = _error(Evaluator(masked, threads=1, optimize=True).run(_inputs(masked)), expected)
    row["finite"] = all(bool(np.isfinite(array).all()) for array in expected.values())
    return {**row, "verdict": verdict(row)}


def verdict(row: Mapping[str, Any]) -> str:
    """What became of a model, in a word or two."""
    if "failed" in row:
        return f"fails: {row['failed']}"
    if not row["finite"]:
        return "no comparison: the original is not finite"
    if not row["error"] <= max(EXACT, 10 * row.get("noise", 0)):
        return "is wrong"
    return "prunes" if row["macs_cut"] >= ENOUGH else "declines"


def _load(file: Path) -> Context:
    context = Context(read(file))
    manager.run(parse("raise-opset{version=17},clean"), context)
    return context


def _inputs(model: Model) -> dict[str, Any]:
    random = np.random.default_rng(1)
    return {
        value.name: random.standard_normal([dim if isinstance(dim, int) else 1 for dim in value.shape or ()]).astype(np.float32)
        for value in model.graph.inputs
    }


def _reasons(analysis: Channels, macs: int) -> dict[str, float]:
    """Why channels stay, with the share of the MACs of the groups that lose nothing for it."""
    shares: dict[str, float] = {}
    for group in analysis.groups:
        if analysis.always[group.classes].all():
            for reason in {frozen.reason for frozen in group.frozen}:
                shares[reason] = shares.get(reason, 0) + group.macs / max(1, macs)
    return {reason: round(share, 3) for reason, share in sorted(shares.items(), key=lambda item: -item[1])}


def masked_original(file: Path, keep: Mask, options: ChannelOptions) -> Model:
    """The model at its old size, in which nothing reads what is outside `keep`: slices of weights are zeroed, and operands of
    products between activations are multiplied by a mask."""
    context = _load(file)
    graph = context.model.graph
    analysis = channels(graph, context, options)
    for slice_ in analysis.slices:
        mask = analysis.masks(slice_.ids, keep)
        if slice_.role == "input" and mask is not None and not mask[slice_.ids_axis].all():
            array = np.array(slice_.constant.array)
            array[(slice(None),) * slice_.axis + (np.flatnonzero(~mask[slice_.ids_axis]),)] = 0
            graph.set_constant(slice_.constant, array)
    for node in [node for node in graph.nodes if node.op in _PRODUCTS]:
        for index, value in enumerate(node.inputs):
            ids = analysis.ids.get(value) if value is not None else None
            if value is not None and ids is not None and not keep[ids].all():
                mask_value = graph.add_constant(keep[ids].astype(np.float32), "mask")
                made = graph.add_node("Mul", [value, mask_value], [graph.fresh_name("masked")], before=node)
                node.set_input(index, made.output())
    return context.model


def _error(found: Mapping[str, Any], expected: Mapping[str, Any]) -> float:
    """The largest difference, relative to the largest element of its output; infinite where a shape differs."""
    worst = 0.0
    for name, array in expected.items():
        if found[name].shape != array.shape:
            return float("inf")
        if array.size:
            difference = np.abs(found[name].astype(np.float64) - array.astype(np.float64)).max()
            worst = max(worst, float(difference / (np.abs(array.astype(np.float64)).max() + 1e-30)))
    return worst
