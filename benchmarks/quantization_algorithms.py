"""What each quantization algorithm is worth on a real network, without labels or training, beside the quantizers of today.

    python benchmarks/efficientnet_lite0.py make --out build/lite0
    python benchmarks/quantization_algorithms.py --folder build/lite0 [--peers PYTHON] [ROW …]

Every row is a process of its own, whose time and peak memory are given: `deburr optimize` with a pipeline, or a peer
(quantization_peers.py) in the environment of PYTHON. `deburr compare` then holds the result against the float model on
evaluation.npz, in ONNX Runtime without optimizations: top-1 agreement and output SQNR. "weights" is what the integers of the
layers take relative to 8 bits each, "with_scales" the same with their scales and zero points, "file" the whole file relative to
the float one. A row that failed says why.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from figures import table, write_json

HERE = Path(__file__).parent
PEERS = ("onnxruntime-minmax", "onnxruntime-percentile", "nncf")
MINMAX, END = "clean,calibrate{observer=minmax}", "insert-qdq,remove-dead-code"
# From the plainest to the best, one thing added or exchanged at a time.
PIPELINES = {
    "W8A8 min-max, nearest": f"{MINMAX},scale-weights,{END}",
    "W8A8 moving-average, nearest": f"clean,calibrate{{observer=moving-average}},scale-weights,{END}",
    "W8A8 percentile, nearest": f"clean,calibrate{{observer=percentile}},scale-weights,{END}",
    "W8A8 entropy, nearest": f"clean,calibrate{{observer=entropy}},scale-weights,{END}",
    "W8A8 mse, nearest": f"clean,calibrate,scale-weights,{END}",
    "W8A8 output-weighted, nearest": f"clean,calibrate{{observer=output-weighted}},scale-weights,{END}",
    "W8A8 equalize, mse, nearest": f"clean,equalize-layers,calibrate,scale-weights,{END}",
    "W8A8 mse, correct-bias": f"clean,calibrate,scale-weights,correct-bias,{END}",
    "W8A8 mse, correct-bias sequential": f"clean,calibrate,scale-weights,correct-bias{{mode=sequential}},{END}",
    "W8A8 min-max, round-weights": f"{MINMAX},scale-weights,round-weights,{END}",
    "W8A8 percentile, round-weights": f"clean,calibrate{{observer=percentile}},scale-weights,round-weights,{END}",
    "W8A8 mse, round-weights (recipe int8)": "int8",
    "W4A8 mse, nearest": f"clean,calibrate,scale-weights{{bits=4}},{END}",
    "W4A8 mse, correct-bias": f"clean,calibrate,scale-weights{{bits=4}},correct-bias,{END}",
    "W4A8 mse, round-weights": f"clean,calibrate,scale-weights{{bits=4}},round-weights,{END}",
    "W4A8 every layer 4 bits, round-weights": f"clean,calibrate,scale-weights{{bits=4,smallest=0}},round-weights,{END}",
    "W4A8 half of int8 and 1 %, mixed-precision, round-weights": (
        f"clean,calibrate,scale-weights{{bits=4}},mixed-precision{{budget=0.505}},round-weights,{END}"
    ),
    "W4A8 blocks of 32, round-weights": f"clean,calibrate,scale-weights{{bits=4,block=32}},round-weights,{END}",
}
COLUMNS = {
    "row": "", "agreement": ".1%", "sqnr_db": ".1f", "weights": ".1%", "with_scales": ".1%", "file": ".1%", "seconds": ".0f",
    "peak_mb": ".0f", "failed": "",
}  # fmt: skip


def run(command: list[str], log: Path) -> tuple[int, float, float]:
    """Exit code, seconds and peak resident megabytes of a process."""
    with log.open("w") as out:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, time.perf_counter() - start, usage.ru_maxrss / 1024


def command(row: str, folder: Path, out: Path, peers: Path | None) -> list[str]:
    model, data = str(folder / "model.onnx"), str(folder / "calibration.npz")
    if row in PEERS:
        return [str(peers or sys.executable), str(HERE / "quantization_peers.py"), row, model, data, str(out)]
    return [sys.executable, "-m", "deburr", "optimize", model, "-o", str(out), "-p", PIPELINES[row], "--data", data]


def weight_bytes(path: Path) -> tuple[float, float]:
    """What the layers' integers take relative to 8 bits each, without and with their scales and zero points.

    They are the constants of two and more axes behind a DequantizeLinear.
    """
    import deburr

    elements = integers = others = 0.0
    for node in deburr.load(path).graph.nodes:
        source = node.optional_input(0)
        constant = None if source is None else source.constant
        if node.op == "DequantizeLinear" and constant is not None and len(constant.shape) > 1:
            elements += constant.size
            integers += _bytes(node, 0)
            others += _bytes(node, 1) + _bytes(node, 2)
    return (integers / elements, (integers + others) / elements) if elements else (4.0, 4.0)


def _bytes(node: Any, index: int) -> float:
    value = node.optional_input(index)
    return 0.0 if value is None or value.constant is None else value.constant.size * value.dtype.bits / 8


def measure(row: str, folder: Path, peers: Path | None) -> dict[str, Any]:
    model, data = folder / "model.onnx", folder / "evaluation.npz"
    with tempfile.TemporaryDirectory() as scratch:
        out, log, figures = (Path(scratch) / name for name in ("out.onnx", "log.txt", "compared.json"))
        code, seconds, peak = run(command(row, folder, out, peers), log)
        found: dict[str, Any] = {"row": row, "seconds": seconds, "peak_mb": peak, "failed": ""}
        if code == 0:
            code, *_ = run([sys.executable, "-m", "deburr", "compare", str(model), str(out), "--data", str(data),
                            "--json", str(figures)], log)  # fmt: skip
        if code:
            return found | {"failed": (log.read_text().strip().splitlines() or [f"exit code {code}"])[-1][:120]}
        compared = json.loads(figures.read_text())
        output, (weights, with_scales) = compared["outputs"][0], weight_bytes(out)
        return found | {
            "agreement": output["top1_agreement"], "sqnr_db": output["sqnr_db"], "samples": compared["samples"],
            "weights": weights, "with_scales": with_scales, "file": out.stat().st_size / model.stat().st_size,
        }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help="patterns of rows' names; all unless given")
    parser.add_argument("--folder", type=Path, default=Path("build/lite0"))
    parser.add_argument("--peers", type=Path, metavar="PYTHON", help="an interpreter that has onnxruntime and nncf")
    parser.add_argument("--json", type=Path, default=Path("build/figures/quantization_algorithms.json"))
    given = parser.parse_args()
    wanted = given.rows or ["*"]
    names = [row for row in (*PEERS, *PIPELINES) if any(fnmatch.fnmatchcase(row, pattern) for pattern in wanted)]
    if not names:
        raise SystemExit(f"no such row: there are {', '.join((*PEERS, *PIPELINES))}")
    for name in ("model.onnx", "calibration.npz", "evaluation.npz"):
        if not (given.folder / name).is_file():
            raise SystemExit(f"no {given.folder / name}: python benchmarks/efficientnet_lite0.py make --out {given.folder}")
    rows = []
    for name in names:
        rows.append(measure(name, given.folder, given.peers))
        print(rows[-1], file=sys.stderr)
        write_json(given.json, rows)
    counts = {row["samples"] for row in rows if "samples" in row}
    with np.load(given.folder / "calibration.npz") as archive:
        calibrating = len(archive[archive.files[0]])
    print(f"{table(COLUMNS, rows)}\n\n{calibrating} samples calibrate, {counts} are scored; {given.json} holds the figures.")


if __name__ == "__main__":
    main()
