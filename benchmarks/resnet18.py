"""ResNet-18 at 224 x 224, batch 1: bundles against ONNX Runtime, interleaved in one run, as a table and as JSON.

    python benchmarks/resnet18.py --out build/bench [--threads 2] [--rounds 30]

The weights are random (`make_resnet18.py`), which changes no latency. "int8" in ONNX Runtime is measured twice: the model that
deburr quantized, and the one that ONNX Runtime's own quantizer makes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import onnx
from make_resnet18 import images, resnet18

import deburr
from deburr.measure import Candidate, Measurement, bench, default_threads


class Reader:
    """Calibration images for ONNX Runtime's quantizer, one at a time."""

    def __init__(self, samples: np.ndarray) -> None:
        self.feeds = iter([{"image": sample[None]} for sample in samples])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.feeds, None)


def quantize_with_onnxruntime(model: Path, out: Path, samples: np.ndarray) -> None:
    """Static QDQ quantization as its documentation recommends: shapes and fusions first, per channel, u8 x s8."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = out.with_suffix(".prepared.onnx")
    quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)  # the symbolic one needs sympy
    quantize_static(
        str(prepared), str(out), Reader(samples), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip


def candidates(out: Path) -> list[Candidate]:
    """Make the models and bundles under `out`."""
    samples = images(16)
    onnx.save(resnet18(), out / "fp32.onnx")
    quantized = deburr.optimize(out / "fp32.onnx", "int8", data={"image": samples}, target="host")
    deburr.save(quantized, out / "int8.onnx")
    quantize_with_onnxruntime(out / "fp32.onnx", out / "int8-by-onnxruntime.onnx", samples)
    for precision in ("fp32", "int8"):
        deburr.compile(out / f"{precision}.onnx", out / f"{precision}.bundle", target="host")
    return [
        Candidate("ONNX Runtime fp32", "onnxruntime", out / "fp32.onnx"),
        Candidate("ONNX Runtime int8, quantized by deburr", "onnxruntime", out / "int8.onnx"),
        Candidate("ONNX Runtime int8, quantized by itself", "onnxruntime", out / "int8-by-onnxruntime.onnx"),
        Candidate("deburr fp32 bundle", "deburr", out / "fp32.bundle"),
        Candidate("deburr int8 bundle", "deburr", out / "int8.bundle"),
    ]


def show(measured: Measurement) -> str:
    """A Markdown table; `ratio` is against ONNX Runtime fp32."""
    lines = ["| | p50 ms | p90 ms | ratio |", "| :-- | --: | --: | --: |"]
    lines += [f"| {row.name} | {row.p50_ms:.2f} | {row.p90_ms:.2f} | {row.ratio:.2f} |" for row in measured.rows]
    return "\n".join([*lines, "", f"{measured.threads} threads, batch {measured.batch}, {measured.rounds} rounds interleaved."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/bench"))
    parser.add_argument("--threads", type=int, default=min(2, default_threads()))
    parser.add_argument("--rounds", type=int, default=30)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    measured = bench(candidates(given.out), threads=given.threads, rounds=given.rounds, data={"image": images(1)})
    (given.out / "resnet18.json").write_text(json.dumps(measured.to_json(), indent=2) + "\n")
    print(show(measured))


if __name__ == "__main__":
    main()
