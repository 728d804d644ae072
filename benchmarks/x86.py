"""Latency on this machine: our bundles beside ONNX Runtime and OpenVINO, for float32, int8, and pruned + int8.

    python benchmarks/x86.py --out build/x86 [--models resnet18 resnet50] [--lite0 build/lite0] [--precisions fp32 int8 pruned]
                             [--tune SECONDS] [--threads 2] [--rounds 30] [--scaling] [--batch 8]

All programs of one model are timed interleaved in one run (`deburr.measure`), a process each. ResNets and MobileNetV2 have
random weights (residual_networks.py), which changes no latency, so weights are rounded to the nearest and ranges are the
extremes; EfficientNet-lite0 (efficientnet_lite0.py make) has its own. ONNX Runtime runs the int8 model that deburr made and the
one that its own quantizer makes; OpenVINO runs that of its dialect and the one for ONNX Runtime. "ratio" is against ONNX
Runtime on the float32 original, "of the best peer" against the fastest peer of that precision. OpenVINO computes
float32 models in float32 (it would take bfloat16 where the CPU has it).

--scaling sets each of our bundles on one thread against itself on all, --batch N compiles it for 1 sample and for N and sets
N in one call against one; a second table has both ratios.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import scaling
from figures import table, write_json
from make_resnet18 import images
from quantization_peers import one_by_one
from quantization_peers import onnxruntime as quantize_with_onnxruntime
from residual_networks import NETWORKS

import deburr
from deburr.measure import Candidate, Measurement, bench, default_threads

INTEGERS = "calibrate{{observer=minmax,dialect={0}}},scale-weights{{dialect={0}}},insert-qdq{{dialect={0}}},remove-dead-code"
SMALLER = "prune-channels{ratio=0.5,criterion=l2,budget=macs,round_to=16},"
PRECISIONS = {"fp32": "", "int8": "", "pruned": SMALLER}
COLUMNS = {"model": "", "precision": "", "program": "", "p50_ms": ".2f", "p90_ms": ".2f", "ratio": ".2f", "of_best_peer": ".2f"}


def models(names: list[str], lite0: Path | None, out: Path) -> Iterator[tuple[str, Path, np.ndarray]]:
    """Name, float32 model and calibration images."""
    for name in names:
        onnx.save(NETWORKS[name](), out / f"{name}.onnx")
        yield name, out / f"{name}.onnx", images(4)
    if lite0 is not None:
        with np.load(lite0 / "calibration.npz") as archive:
            yield "lite0", lite0 / "model.onnx", archive["image"][:32]


def prepare(model: Path, precision: str, samples: np.ndarray, out: Path) -> dict[str, tuple[str, Path]]:
    """The ONNX files of one precision: program -> (engine, file). The first is the one that is compiled."""
    if precision == "fp32":
        return {"ONNX Runtime": ("onnxruntime", model), "OpenVINO": ("openvino", model)}
    made = {}
    smaller = deburr.optimize(model, f"clean,{PRECISIONS[precision]}remove-dead-code", data={"image": samples}, target="host")
    for dialect in ("ort", "openvino"):
        made[dialect] = out.with_name(f"{out.name}-{dialect}.onnx")
        deburr.save(deburr.optimize(smaller, INTEGERS.format(dialect), data={"image": samples}), made[dialect])
    files = {
        "ONNX Runtime, quantized by deburr": ("onnxruntime", made["ort"]),
        "OpenVINO, the same file": ("openvino", made["ort"]),
        "OpenVINO, dialect openvino": ("openvino", made["openvino"]),
    }
    floats, by_peer = out.with_name(f"{out.name}-float.onnx"), out.with_name(f"{out.name}-by-onnxruntime.onnx")
    deburr.save(smaller, floats)
    quantize_with_onnxruntime(floats, one_by_one({"image": samples}), by_peer)
    return {**files, "ONNX Runtime, quantized by itself": ("onnxruntime", by_peer)}


def programs(name: str, model: Path, samples: np.ndarray, given: argparse.Namespace) -> dict[tuple[str, str], Candidate]:
    """(precision, program) -> what is timed, ONNX Runtime on the float32 original first."""
    found = {}
    for precision in given.precisions:
        files = prepare(model, precision, samples, given.out / f"{name}-{precision}")
        for program, (engine, path) in files.items():
            if engine == "openvino" and importlib.util.find_spec("openvino") is None:
                print(f"{precision}: {program} is missing, pip install 'deburr[openvino]'", file=sys.stderr)
                continue
            found[precision, program] = Candidate(program, engine, path)
        source = next(iter(files.values()))[1]
        for program, seconds in {"deburr": 0, "deburr, tuned": given.tune}.items():
            if seconds or program == "deburr":
                bundle = given.out / f"{name}-{precision}{'-tuned' if seconds else ''}.bundle"
                sizes = (1, given.batch) if given.batch else 1
                deburr.compile(source, bundle, target="host", tune=seconds, threads=given.threads, batch=sizes)
                found[precision, program] = Candidate(program, "deburr", bundle)
    return found


def rows(name: str, keys: list[tuple[str, str]], measured: Measurement) -> Iterator[dict[str, Any]]:
    """One per program; peers have engines of other names than ours."""
    times = {key: row.p50_ms for key, row in zip(keys, measured.rows, strict=True)}
    first = times[keys[0]]
    for (precision, program), row in zip(keys, measured.rows, strict=True):
        peers = [times[key] for key in keys if key[0] == precision and not key[1].startswith("deburr")]
        yield {
            "model": name, "precision": precision, "program": program, "p50_ms": row.p50_ms, "p90_ms": row.p90_ms,
            "ratio": row.p50_ms / first, "of_best_peer": row.p50_ms / min(peers), "calls": row.calls,
        }  # fmt: skip


def ratios(
    name: str, entries: dict[tuple[str, str], Candidate], samples: np.ndarray, given: argparse.Namespace
) -> Iterator[Any]:
    """Of each of our bundles against itself."""
    for (precision, program), one in entries.items():
        if one.engine == "deburr":
            found = scaling.against_itself(
                one.path, threads=given.threads, batch=given.batch, samples={"image": samples}, rounds=given.rounds
            )
            yield {"model": name, "precision": precision, "program": program, **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/x86"))
    parser.add_argument("--models", nargs="*", choices=list(NETWORKS), default=["resnet18", "resnet50"])
    parser.add_argument("--lite0", type=Path, help="the folder that efficientnet_lite0.py made")
    parser.add_argument("--precisions", nargs="+", choices=list(PRECISIONS), default=list(PRECISIONS))
    parser.add_argument("--tune", type=float, default=0, metavar="SECONDS", help="per model and precision")
    parser.add_argument("--threads", type=int, default=min(2, default_threads()))
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--scaling", action="store_true", help="one thread against all")
    parser.add_argument("--batch", type=int, metavar="N", help="N samples a call against one")
    parser.add_argument("--json", type=Path, default=Path("build/figures/x86.json"))
    given = parser.parse_args()
    given.precisions = [precision for precision in PRECISIONS if precision in {"fp32", *given.precisions}]
    given.out.mkdir(parents=True, exist_ok=True)
    found: list[dict[str, Any]] = []
    compared: list[dict[str, Any]] = []
    for name, model, samples in models(given.models, given.lite0, given.out):
        candidates = programs(name, model, samples, given)
        entries = list(candidates.values())
        measured = bench(entries, threads=given.threads, rounds=given.rounds, data={"image": samples[:1]})
        found += rows(name, list(candidates), measured)
        if given.scaling or given.batch:
            compared += ratios(name, candidates, samples, given)
        document = {"threads": given.threads, "rounds": given.rounds, "rows": found, "ratios": compared}
        write_json(given.json, document)
    print(f"{table(COLUMNS, found)}\n\n{given.threads} threads, batch 1, {given.rounds} rounds interleaved; {given.json}")
    if compared:
        print(f"\n{table(scaling.COLUMNS, compared)}\n\n{given.threads} threads against 1, batch {given.batch} against 1")


if __name__ == "__main__":
    main()
