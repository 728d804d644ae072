"""From nothing to a program for another machine, as a new user goes: a fresh environment, an empty folder, three commands.

    python benchmarks/three_commands.py --json build/three_commands.json

The wheel of this working tree is installed with its extra `cross`, a model compiled for a device, and the bundle run on an
emulated one (Debian: qemu-user-static, libstdc++6-arm64-cross). Nothing is shared with other runs, neither zig's cache nor
the downloaded runtime; the packages come from wherever pip has them. At the end the outputs are compared with those of the
bundle for this machine, which is not part of the time.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from figures import table, write_json

ROOT = Path(__file__).parent.parent
SAMPLES = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "examples" / "fashion_mnist" / "model.onnx", help="a float model")
    parser.add_argument("--data", type=Path, default=ROOT / "examples" / "fashion_mnist" / "calibration.npz")
    parser.add_argument("--target", default="raspberry-pi/4b")
    parser.add_argument("--device", default="qemu")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="deburr-fresh-") as name:
        rows, equal = walk(Path(name), options)
    total = sum(row["seconds"] for row in rows)
    print(table({"command": "", "seconds": ".1f"}, [*rows, {"command": "in all", "seconds": total}]))
    verdict = "the same bits as" if equal else "OTHER BITS THAN"
    print(f"int8 outputs of {SAMPLES} samples: {verdict} those of the bundle for this machine")
    if options.json:
        write_json(options.json, {"commands": rows, "seconds": total, "equal": equal, "target": options.target})
    raise SystemExit(not equal)


def walk(folder: Path, options: argparse.Namespace) -> tuple[list[dict[str, object]], bool]:
    """The commands with their seconds, and whether both bundles gave the same bits."""
    here = Path(sys.executable).parent
    wheel = folder / "wheel"
    subprocess.run([here / "python", "-m", "build", "--quiet", "--wheel", "--outdir", wheel, ROOT], check=True)
    with np.load(options.data) as data:
        np.savez(folder / "x.npz", **{key: data[key][:SAMPLES] for key in data.files if key != "labels"})
    model, data = str(options.model), str(options.data)
    run([str(here / "deburr"), "optimize", model, "-o", "int8.onnx", "-p", "int8", "--data", data], folder)
    environment = {**os.environ, "HOME": str(folder), "XDG_CACHE_HOME": str(folder / "cache")}
    run([sys.executable, "-m", "venv", "fresh"], folder)
    deburr = str(folder / "fresh" / "bin" / "deburr")
    commands = {
        "pip install": [str(folder / "fresh/bin/pip"), "install", "--quiet", f"{next(wheel.iterdir())}[cross]"],
        f"deburr compile --target {options.target}": [
            deburr,
            "compile",
            "int8.onnx",
            "-o",
            "there",
            "--target",
            options.target,
        ],
        f"deburr bench --device {options.device}": [deburr, "bench", "there", "--device", options.device],
    }
    rows: list[dict[str, object]] = [
        {"command": text, "seconds": run(words, folder, environment)} for text, words in commands.items()
    ]
    run([deburr, "compile", "int8.onnx", "-o", "here"], folder, environment)
    run([deburr, "run", "here", "--input", "x.npz", "-o", "here.npz"], folder, environment)
    run([deburr, "run", "there", "--input", "x.npz", "-o", "there.npz", "--device", options.device], folder, environment)
    with np.load(folder / "here.npz") as wanted, np.load(folder / "there.npz") as got:
        equal = wanted.files == got.files and all(np.array_equal(wanted[key], got[key]) for key in wanted.files)
    return rows, equal


def run(words: list[str], folder: Path, environment: dict[str, str] | None = None) -> float:
    """The seconds of a command; what it says where it fails."""
    start = time.monotonic()
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: {done.stderr.strip()}")
    return time.monotonic() - start


if __name__ == "__main__":
    main()
