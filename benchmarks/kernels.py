"""Single int8 convolutions, ours against ONNX Runtime's QLinearConv, interleaved in one run.

    python benchmarks/kernels.py --threads 2 --json build/kernels.json

Times are the best of several rounds, because whatever else runs on the machine only ever adds; compare ratios, not times.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deburr.targets.kernels.workload import Conv2d, Requantize

ROUNDS = 40  # short ones: the shorter a round, the likelier one of them has the machine to itself
SECONDS_A_ROUND = 0.003
PAUSE = 0.002  # lets the other side's spinning threads fall asleep


@dataclass(frozen=True)
class Shape:
    """A square convolution, batch 1."""

    name: str
    inputs: int
    size: int
    outputs: int
    kernel: int = 3
    stride: int = 1
    groups: int = 1

    def workload(self, block: int) -> Conv2d:
        kernel, strides, pad = (self.kernel, self.kernel), (self.stride, self.stride), self.kernel // 2
        in_block = 4 if self.inputs <= 4 else block
        return Conv2d(
            1, self.inputs, self.size, self.size, self.outputs, kernel, strides, (pad, pad, pad, pad),
            groups=self.groups, in_block=in_block, out_block=block, requantize=Requantize(0),
        )  # fmt: skip


SHAPES = (
    Shape("first 7x7/2", 3, 224, 64, 7, 2),
    Shape("3x3x64@56", 64, 56, 64),
    Shape("3x3x128@28", 128, 28, 128),
    Shape("3x3x256@14", 256, 14, 256),
    Shape("3x3x512@7", 512, 7, 512),
    Shape("3x3/2 64-128@56", 64, 56, 128, stride=2),
    Shape("3x3/2 128-256@28", 128, 28, 256, stride=2),
    Shape("3x3/2 256-512@14", 256, 14, 512, stride=2),
    Shape("1x1/2 64-128@56", 64, 56, 128, 1, 2),
    Shape("1x1 64-256@56", 64, 56, 256, 1),
    Shape("1x1 256-64@56", 256, 56, 64, 1),
    Shape("1x1 512-2048@7", 512, 7, 2048, 1),
    Shape("gemm 512-1000", 512, 1, 1000, 1),
    Shape("depthwise 96@56", 96, 56, 96, groups=96),
    Shape("depthwise 144/2@56", 144, 56, 144, stride=2, groups=144),
    Shape("demo 3x3x32@28", 32, 28, 32),
    Shape("demo 3x3x80@14", 80, 14, 80),
    Shape("demo 3x3x192@7", 192, 7, 192),
)


def ours(workload: Conv2d, target: Any) -> Callable[[], object]:
    """A call of our kernel on random data."""
    import tvm

    from deburr.targets.kernels import build, pack
    from deburr.targets.schedules import pipeline

    kernel = build.kernel(workload, target)
    weight, bias, multiplier = constants(workload)
    packed = pack.pack_conv2d(workload, target, weight, bias, multiplier)
    data = np.random.default_rng(0).integers(0, 256, kernel.arguments[0].shape).astype(np.uint8)
    arrays = [data, *packed.values(), np.zeros(kernel.arguments[-1].shape, np.uint8)]
    function = pipeline.library(kernel.function, target)["main"]
    tensors = [tvm.runtime.tensor(array) for array in arrays]
    return lambda: function(*tensors)


def peer(workload: Conv2d, threads: int) -> Callable[[], object]:
    """A call of ONNX Runtime on a model of one QLinearConv."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    w = workload
    weight, bias, multiplier = constants(w)
    scale, zero = np.float32(1), np.uint8(0)
    values = {
        "xs": scale,
        "xz": zero,
        "w": weight,
        "ws": multiplier,
        "wz": np.zeros_like(weight[:, 0, 0, 0]),
        "ys": scale,
        "yz": zero,
    }
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in {**values, "b": bias}.items()]
    node = helper.make_node(
        "QLinearConv", ["x", *values, "b"], ["y"], kernel_shape=w.kernel, strides=w.strides, pads=w.pads, group=w.groups
    )
    shape = [w.batch, w.in_channels, w.in_height, w.in_width]
    out_shape = [w.batch, w.out_channels, w.out_height, w.out_width]
    ends = [helper.make_tensor_value_info(name, TensorProto.UINT8, dims) for name, dims in (("x", shape), ("y", out_shape))]
    graph = helper.make_graph([node], "one", ends[:1], ends[1:], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    binding.bind_cpu_input("x", np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8))
    binding.bind_output("y", "cpu")
    return lambda: session.run_with_iobinding(binding)


def constants(workload: Conv2d) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights, bias and multiplier that use the whole range of u8."""
    w, rng = workload, np.random.default_rng(1)
    weight = rng.integers(-127, 128, (w.out_channels, w.in_channels // w.groups, *w.kernel)).astype(np.int8)
    multiplier = np.full(w.out_channels, 1 / (74 * 74 * weight[0].size ** 0.5), np.float32)
    return weight, np.zeros(w.out_channels, np.int32), multiplier


def best(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Seconds a call takes, the best of `ROUNDS` rounds in turn."""
    results = dict.fromkeys(calls, float("inf"))
    counts = {name: max(1, int(SECONDS_A_ROUND / _seconds(call, 3))) for name, call in calls.items()}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            time.sleep(PAUSE)
            _seconds(call, 2)
            results[name] = min(results[name], _seconds(call, counts[name]))
    return results


def _seconds(call: Callable[[], object], count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - start) / count


def measure(shape: Shape, target: Any, threads: int) -> dict[str, Any]:
    """One row of the table."""
    workload = shape.workload(target.block)
    seconds = best({"ours": ours(workload, target), "onnxruntime": peer(workload, threads)})
    row: dict[str, Any] = {"name": shape.name, "macs": workload.macs, "threads": threads}
    row |= {f"{name}_us": second * 1e6 for name, second in seconds.items()}
    row["gmacs_per_second"] = workload.macs / seconds["ours"] / 1e9
    row["ratio"] = seconds["ours"] / seconds["onnxruntime"]
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--target", default="host")
    parser.add_argument("--only", default="", help="only shapes whose name holds this text")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    os.environ["TVM_NUM_THREADS"] = str(arguments.threads)  # read when TVM's pool starts

    from deburr.targets import target as targets

    target, rows = targets.find(arguments.target), []
    print(f"{'':20} {'ours us':>9} {'GMAC/s':>8} {'ORT us':>9} {'ours/ORT':>9}")
    for shape in (shape for shape in SHAPES if arguments.only in shape.name):
        row = measure(shape, target, arguments.threads)
        rows.append(row)
        numbers = f"{row['ours_us']:9.1f} {row['gmacs_per_second']:8.1f} {row['onnxruntime_us']:9.1f} {row['ratio']:9.2f}"
        print(f"{shape.name:20} {numbers}", flush=True)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps({"target": dict(target.tvm), "rows": rows}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
