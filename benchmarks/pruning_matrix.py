"""The matrix of wirings that pruning knows: what it couples, what goes, how exact the result is, and what is frozen and why.

    python benchmarks/pruning_matrix.py [--json build/pruning_matrix.json]

The cases are those of tests/passes/matrix.py; the error is the largest of 20 random keep-sets, relative to the largest output.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from passes.matrix import FROZEN, PRUNABLE, case, macs_after
from passes.pruning import analyse, largest_error


def row(name: str) -> dict[str, Any]:
    """The figures of one case."""
    proto = case(name)
    _, _, analysis = analyse(proto)
    units = [group.classes for group in analysis.groups]
    before, after, _ = macs_after(proto, seed=1)
    removed, error = largest_error(proto, np.random.default_rng(0), keep_sets=20)
    own = (frozen for frozen in analysis.frozen if frozen.reason != "it is an output of the graph")
    return {
        "case": name, "classes": sum(map(len, units)), "prunable": sum(int((~analysis.always[unit]).sum()) for unit in units),
        "macs_before": before, "macs_after": after, "removed": removed, "relative_error": error,
        "frozen": list(dict.fromkeys(frozen.reason for frozen in own)),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    print(f"{'case':26} {'classes':>7} {'prunable':>8} {'MACs':>9} {'after':>9} {'error':>8}  frozen")
    rows = []
    for name in (*PRUNABLE, *FROZEN):
        rows.append(row(name))
        line = "{case:26} {classes:7} {prunable:8} {macs_before:9} {macs_after:9} {relative_error:8.1e}".format(**rows[-1])
        print(f"{line}  {'; '.join(rows[-1]['frozen'])}", flush=True)
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
