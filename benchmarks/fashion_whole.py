"""The whole of it on the demo's Fashion-MNIST network: how much smaller, how much faster, and at what accuracy.

    python benchmarks/fashion_recovery.py --ratios 0.5 0.75
    python benchmarks/fashion_whole.py --json build/figures/fashion_whole.json

Compiles what `fashion_recovery.py` has written, and times the bundles beside ONNX Runtime on the original in one interleaved
run, one test image at a time. Accuracy is the bundle's own. Wants a quiet machine.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from figures import table, write_json

FOLDER = Path(__file__).parents[1] / "examples" / "fashion_mnist"
COLUMNS = {
    "model": "", "macs_cut": ".1%", "bytes": "d", "smaller": ".1f", "p50_ms": ".3f", "p90_ms": ".3f", "faster": ".1f",
    "accuracy": ".2%", "lost": "+.2f",
}  # fmt: skip


def sized(paths: list[Path], out: Path, samples: int | None) -> tuple[list[dict[str, Any]], list[Path]]:
    """A row for the original and each model, without times; and the bundles."""
    import numpy as np

    import deburr
    from deburr.inspect import size
    from deburr.ir.fidelity import accuracy

    with np.load(FOLDER / "evaluation.npz") as archive:
        data, labels = {"image": archive["image"][:samples]}, archive["labels"][:samples]
    rows: list[dict[str, Any]] = []
    bundles: list[Path] = []
    for path in (FOLDER / "model.onnx", *paths):
        model, runs = deburr.load(path), path
        if path in paths:
            runs = out / f"{path.stem}.bundle"
            deburr.compile(model, runs, target="host")
            bundles.append(runs)
        found, macs, held = accuracy(deburr.run(runs, data)["logits"], labels), size(model).macs, path.stat().st_size
        assert found is not None
        first = rows[0] if rows else {"accuracy": found, "macs": macs, "bytes": held}
        rows.append({
            "model": path.stem, "macs": macs, "macs_cut": 1 - macs / first["macs"], "bytes": held,
            "smaller": first["bytes"] / held, "accuracy": found, "lost": 100 * (first["accuracy"] - found),
            "samples": len(labels),
        })  # fmt: skip
    return rows, bundles


def time_them(rows: list[dict[str, Any]], bundles: list[Path], threads: int, rounds: int) -> None:
    """Note in the rows what a call takes, and how many times faster that is than the original in ONNX Runtime."""
    import numpy as np

    from deburr.measure import bench, candidates

    with np.load(FOLDER / "evaluation.npz") as archive:
        data = {"image": archive["image"][:1]}
    timed = bench(candidates([FOLDER / "model.onnx", *bundles]), threads=threads, rounds=rounds, data=data).rows
    for row, one in zip(rows, timed, strict=True):
        row.update(p50_ms=one.p50_ms, p90_ms=one.p90_ms, faster=timed[0].p50_ms / one.p50_ms, threads=threads)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made = [Path(f"build/recovery/{ratio}-fewer-MACs-trained-int8.onnx") for ratio in (50, 75)]
    parser.add_argument("models", type=Path, nargs="*", default=made, help="quantized models of fashion_recovery.py")
    parser.add_argument("--json", type=Path, default=Path("build/figures/fashion_whole.json"))
    parser.add_argument("--out", type=Path, default=Path("build/whole"), help="where bundles are written")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--samples", type=int, default=None, help="score the first N test images only")
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    rows, bundles = sized(given.models, given.out, given.samples)
    time_them(rows, bundles, given.threads, given.rounds)
    write_json(given.json, rows)
    print(f"{table(COLUMNS, rows)}\n\n{given.threads} threads, batch 1, {rows[0]['samples']} test images.")


if __name__ == "__main__":
    main()
