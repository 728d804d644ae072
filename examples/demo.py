"""The main job, from one end to the other: a trained network becomes smaller and faster, and every figure is measured here.

    python examples/demo.py --out build/demo

The residual network of examples/fashion_mnist is pruned, quantized, and both; each of the four models is compiled, checked on
test images that it has never seen, and timed in ONNX Runtime and as a compiled bundle, all in one interleaved run.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

import deburr
from deburr.compare import difference
from deburr.inspect import size
from deburr.ir.fidelity import accuracy
from deburr.measure import Candidate, bench, default_threads

# Name -> (what it is made from, recipe). Pruning and then int8 is the recipe `prune-int8`, half of which is done already.
VARIANTS = {
    "original": (None, ""),
    "pruned": ("original", "prune"),
    "int8": ("original", "int8"),
    "pruned + int8": ("pruned", "int8"),
}
FOLDER = Path(__file__).parent / "fashion_mnist"
COLUMNS = ("accuracy", "parameters", "macs", "file_bytes", "ort_ms", "ort_p90_ms", "bundle_ms", "bundle_p90_ms")


def build(folder: Path, out: Path, samples: int | None) -> list[dict]:
    """Write the four models and bundles; the figures that need no clock."""
    with np.load(folder / "evaluation.npz") as archive:
        images, labels = archive["image"][:samples], archive["labels"][:samples]
    models = {}
    rows = []
    for name, (source, recipe) in VARIANTS.items():
        start = time.perf_counter()
        stem = name.replace(" + ", "-")
        if source is None:
            model = deburr.load(folder / "model.onnx")
        else:
            model = deburr.optimize(models[source], recipe, data=folder / "calibration.npz", target="host", seed=0)
        models[name] = model
        deburr.save(model, out / f"{stem}.onnx")
        bundle = deburr.compile(model, out / f"{stem}.bundle", target="host")
        wanted = deburr.run(out / f"{stem}.onnx", {"image": images})["logits"]
        got = deburr.run(bundle, {"image": images})["logits"]
        found = size(model)
        rows.append({
            "name": name, "accuracy": accuracy(wanted, labels), "samples": len(labels),
            "parameters": found.parameters, "macs": found.macs, "file_bytes": (out / f"{stem}.onnx").stat().st_size,
        })  # fmt: skip
        close = difference("logits", wanted, got, labels)
        print(
            f"{name}: made in {time.perf_counter() - start:.1f} s; bundle against ONNX Runtime on {len(labels)} images: "
            f"top-1 agreement {close.top1_agreement:.2%}, SQNR {close.sqnr_db:.1f} dB, accuracy {close.candidate_accuracy:.2%}",
            flush=True,
        )
    return rows


def measure(rows: list[dict], folder: Path, out: Path, threads: int, rounds: int) -> None:
    """Time all four models and all four bundles on one test image, in one interleaved run, and note it in `rows`."""
    with np.load(folder / "evaluation.npz") as archive:
        data = {"image": archive["image"][:1]}
    stems = [row["name"].replace(" + ", "-") for row in rows]
    models = [Candidate(stem, "onnxruntime", out / f"{stem}.onnx") for stem in stems]
    bundles = [Candidate(stem, "deburr", out / f"{stem}.bundle") for stem in stems]
    timed = bench(models + bundles, threads=threads, rounds=rounds, data=data).rows
    for row, model, bundle in zip(rows, timed[: len(rows)], timed[len(rows) :], strict=True):
        row.update(ort_ms=model.p50_ms, ort_p90_ms=model.p90_ms, bundle_ms=bundle.p50_ms, bundle_p90_ms=bundle.p90_ms)


def show(rows: list[dict]) -> str:
    """The rows as a Markdown table, and what they say."""
    lines = ["| | " + " | ".join(COLUMNS) + " |", "| :-- |" + " --: |" * len(COLUMNS)]
    for row in rows:
        figures = [
            f"{row['accuracy']:.2%}",
            *(str(row[key]) for key in COLUMNS[1:4]),
            *(f"{row[key]:.3f}" for key in COLUMNS[4:]),
        ]
        lines.append(f"| {row['name']} | " + " | ".join(figures) + " |")
    first, last = rows[0], rows[-1]
    lines += [
        "",
        f"{last['name']} against {first['name']}: file {first['file_bytes'] / last['file_bytes']:.1f}x smaller, bundle "
        f"{first['ort_ms'] / last['bundle_ms']:.1f}x faster than ONNX Runtime on the original, accuracy "
        f"{100 * (last['accuracy'] - first['accuracy']):+.2f} points on {last['samples']} test images.",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=FOLDER, help="folder with model.onnx, calibration.npz, evaluation.npz")
    parser.add_argument("--out", type=Path, default=Path("build/demo"))
    parser.add_argument("--threads", type=int, default=min(2, default_threads()))
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--samples", type=int, default=None, help="evaluate on the first N images only")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    rows = build(given.model, given.out, given.samples)
    measure(rows, given.model, given.out, given.threads, given.rounds)
    (given.out / "report.json").write_text(json.dumps(rows, indent=2) + "\n")
    print(f"\n{show(rows)}\n\n{given.threads} threads, batch 1; {given.out / 'report.json'} holds the figures.")


if __name__ == "__main__":
    main()
