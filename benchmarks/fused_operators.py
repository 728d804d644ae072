"""What ONNX Runtime executes of quantized models: its operators counted in the optimized graph that it saves.

    python benchmarks/fused_operators.py [--dialect ort] [--json build/fused_operators.json]

The network of the demo has trained weights and its own calibration data; ResNet-18, ResNet-50 and MobileNetV2 have random
weights and smoothed noise, which changes no count. Weights are rounded to the nearest, ranges are the extremes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from figures import table, write_json
from make_resnet18 import images
from residual_networks import NETWORKS

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from passes.quantizing import fused, ops, optimized

from deburr.ir.onnx_writer import to_proto

DEMO = Path(__file__).parents[1] / "examples" / "fashion_mnist"
FLOAT = ("Conv", "FusedConv", "NhwcFusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul")
COLUMNS = {
    "model": "",
    "weights": "",
    "layers": "d",
    "QLinearConv": "d",
    "QGemm": "d",
    "QLinearAdd": "d",
    "float": "d",
    "all": "",
}


def models() -> Iterator[tuple[str, str, onnx.ModelProto, dict[str, np.ndarray]]]:
    """Name, where the weights come from, the float model and its calibration data."""
    yield "demo", "trained", onnx.load(DEMO / "model.onnx"), {"image": np.load(DEMO / "calibration.npz")["image"][:32]}
    for name, make in NETWORKS.items():
        yield name, "random", make(), {"image": images(4)}


def row(name: str, weights: str, proto: onnx.ModelProto, counts: Counter[str]) -> dict[str, Any]:
    layers = sum(ops(proto)[op] for op in ("Conv", "Gemm", "MatMul"))
    named = {op: counts[op] for op in ("QLinearConv", "QGemm", "QLinearAdd")}
    every = ", ".join(f"{op} {count}" for op, count in sorted(counts.items()))
    return {
        "model": name,
        "weights": weights,
        "layers": layers,
        **named,
        "float": sum(counts[op] for op in FLOAT),
        "all": every,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dialect", default="ort")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows = []
    for name, weights, proto, data in models():
        pipeline = f"clean,quantize{{observer=minmax,rounding=nearest,dialect={given.dialect}}}"
        result = to_proto(optimized(proto, pipeline, data=data).model)
        with tempfile.TemporaryDirectory() as folder:
            rows.append(row(name, weights, proto, fused(result, Path(folder))))
    print(table(COLUMNS, rows))
    if given.json:
        write_json(given.json, {"dialect": given.dialect, "rows": rows})


if __name__ == "__main__":
    main()
