"""The matrix of wirings that pruning knows: what it couples, what goes, how exact the result is, and what is frozen and why.

    python benchmarks/pruning_matrix.py [--keep-sets 20] [--json build/pruning_matrix.json]

The cases are those of tests/passes: images (also with whole groups of grouped convolutions), sequences (attention with whole
heads and inside heads), and what must be frozen. The error is the largest of all keep-sets, relative to the largest output;
MACs are those of the model and the share that a keep-set of every other channel takes away.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from figures import table, write_json

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from passes.matrix import FROZEN, PRUNABLE, case
from passes.test_matrix import WITH_GROUPS
from passes.topologies_transformer import TOPOLOGIES as SEQUENCES
from passes.topologies_transformer import WITH_HEADS

from deburr.passes.analysis.cost import cost
from deburr.passes.analysis.walk import ChannelOptions
from deburr.passes.prune.surgery import remove_channels
from passes import pruning, test_transformers

LIMIT = 1e-5
COLUMNS = {
    "case": "", "groups": "d", "classes": "d", "prunable": "d", "keep_sets": "d", "removed": "d", "relative_error": ".1e",
    "macs": "d", "macs_cut": ".0%", "verdict": "", "frozen": "",
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A model, the options of its analysis, how its error is measured, and why its channels must stay, if they must."""

    name: str
    proto: onnx.ModelProto
    options: ChannelOptions
    measure: Callable[[int], tuple[int, float]]
    stays: str = ""


def cases() -> Iterator[Case]:
    """Every case of the tests."""
    for name in (*PRUNABLE, *FROZEN):
        yield _image(name, name, ChannelOptions(), FROZEN[name][1] if name in FROZEN else "")
    for name in WITH_GROUPS:
        yield _image(f"{name}, whole groups", name, ChannelOptions(groups="whole"))
    for name, build in SEQUENCES.items():
        yield _sequence(name, test_transformers.sequence_model(build), ChannelOptions())
    for name, build in WITH_HEADS.items():
        for options in (ChannelOptions(heads="whole"), ChannelOptions(heads="inner")):
            yield _sequence(f"{name}, heads {options.heads}", test_transformers.sequence_model(build), options)


def _image(name: str, built: str, options: ChannelOptions, stays: str = "") -> Case:
    def measure(keep_sets: int) -> tuple[int, float]:
        return pruning.largest_error(case(built), np.random.default_rng(0), keep_sets, options=options)

    return Case(name, case(built), options, measure, stays)


def _sequence(name: str, proto: onnx.ModelProto, options: ChannelOptions) -> Case:
    return Case(name, proto, options, partial(test_transformers.largest_error, proto, options, 0))


def row(given: Case, keep_sets: int) -> dict[str, Any]:
    """The figures of one case."""
    model, context, analysis = pruning.analyse(given.proto, given.options)
    own = dict.fromkeys(frozen.reason for frozen in analysis.frozen if frozen.reason != "it is an output of the graph")
    before = cost(model.graph, context).total_macs
    removed, error = given.measure(keep_sets)
    keep = analysis.keep_all()
    for group in analysis.prunable:
        keep[group.classes[1::2]] = False
    remove_channels(analysis, analysis.repair(keep)[0], context)
    cut = 1 - cost(model.graph, context).total_macs / before if before else 0.0
    told = any(given.stays in reason for reason in own) if given.stays else removed > 0 and cut > 0
    return {
        "case": given.name, "groups": len(analysis.groups), "classes": sum(group.size for group in analysis.groups),
        "prunable": sum(int((~analysis.always[group.classes]).sum()) for group in analysis.groups), "keep_sets": keep_sets,
        "removed": removed, "relative_error": error, "macs": before, "macs_cut": cut,
        "verdict": ("frozen" if given.stays else "exact") if told and error <= LIMIT else "WRONG", "frozen": "; ".join(own),
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep-sets", type=int, default=20)
    given = parser.parse_args()
    rows = [row(one, given.keep_sets) for one in cases()]
    print(table(COLUMNS, rows))
    wrong = [one["case"] for one in rows if one["verdict"] == "WRONG"]
    print(f"\n{len(rows)} cases, {len(wrong)} wrong{': ' if wrong else ''}{', '.join(wrong)}")
    if given.json:
        write_json(given.json, rows)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
