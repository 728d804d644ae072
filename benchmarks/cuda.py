"""Our kernels for NVIDIA GPUs: what the compiler makes of them, which needs no GPU; and their latency, which does.

    python benchmarks/cuda.py [--models resnet18 resnet50 mobilenet_v2 efficientnet_lite0] [--lite0 build/lite0]
                              [--precisions int8 fp16 fp32] [--architectures sm_75 sm_80 sm_90] [--compiler nvrtc.so.13]
                              [--json build/figures/cuda.json]
    python benchmarks/cuda.py --latency [--rounds 50]

The first table has a line for each model, precision and architecture: kernels in the program, and how many ptxas took; the
most registers of a thread, the bytes that spilled, the most shared memory of a block; how many functions are convolutions or
matrix products (depthwise ones apart, which sum over no channels), and how many of these have tensor-core or dp4a instructions
in their PTX. "full" are kernels of which a multiprocessor holds as many warps as it can; "by_registers" and "by_shared" those
that do with fewer for want of these; "occupancy" is the mean share of warps (occupancy.py). Weights are random where the
model is a network of residual_networks.py.

--latency compiles for the GPU of this machine and times our bundle against ONNX Runtime on CUDA and on TensorRT (its execution
providers, where they are installed), in turns within one process. A call brings its input there and the result back.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from figures import require, table, write_json
from occupancy import occupancy
from residual_networks import NETWORKS
from x86 import INTEGERS, models

import deburr
from deburr.ir.onnx_reader import read
from deburr.targets import worker
from deburr.targets.emit import emit_all
from deburr.targets.nvidia import compiler, driver, pack, toolchain
from deburr.targets.nvidia.toolchain import Toolchain
from deburr.targets.presets import built_in
from deburr.targets.programs import lowered_for
from deburr.targets.target import Target, find

COLUMNS = {
    "model": "", "precision": "", "arch": "", "kernels": "d", "compiled": "d", "registers": "d", "spilled": "d", "shared": "d",
    "products": "d", "tensor_core": "d", "dp4a": "d", "neither": "d", "full": "d", "by_registers": "d", "by_shared": "d",
    "occupancy": ".0%", "seconds": ".1f",
}  # fmt: skip
LATENCY = {"model": "", "precision": "", "program": "", "p50_ms": ".3f", "p90_ms": ".3f", "ratio": ".2f"}
PROVIDERS = {"ONNX Runtime, CUDA": "CUDAExecutionProvider", "ONNX Runtime, TensorRT": "TensorrtExecutionProvider"}
ENTRY = re.compile(r"\.entry (\w+)\(")
THREADS = re.compile(r"\.maxntid (\d+)")
PRODUCT = re.compile(r"^(deburr_(?:conv2d|matmul)_\d+)")


def of_precision(model: Path, precision: str, samples: np.ndarray, folder: Path) -> Path:
    """The file that is compiled."""
    if precision == "fp32":
        return model
    made = folder / f"{model.stem}-{precision}.onnx"
    pipeline = "clean,convert-float16" if precision == "fp16" else f"clean,remove-dead-code,{INTEGERS.format('ort')}"
    deburr.save(deburr.optimize(model, pipeline, data={"image": samples}), made)
    return made


def target_of(architecture: str) -> Target:
    """The first preset of a GPU of this architecture alone.

    :raises SystemExit: where there is none.
    """
    for name, preset in built_in().items():
        if preset.gpu == [architecture]:
            return find(name)
    raise SystemExit(f"no preset is for {architecture} alone")


def sources(model: Path, architecture: str) -> str:
    """The CUDA C++ of a whole program, for one sample."""
    target = target_of(architecture)
    lowered = {one.function: one.lowered for one in lowered_for(read(model), target).each}
    with worker.without_gpu():
        executable = worker.build_module(emit_all(lowered, target), target, list(lowered))
    (code,) = pack.sources(executable.mod)
    return code


def facts(model: Path, architecture: str, folder: Path, by: Toolchain | None) -> dict[str, Any]:
    """A line of the first table, less its name."""
    start = time.perf_counter()
    code = sources(model, architecture)
    kernels = compiler.cubin(code, architecture, folder, by)[1]
    each = dict(bodies(code, architecture, folder, by))
    instructions = {name: (body.count("wmma.mma"), body.count("dp4a")) for name, body in each.items()}
    held = [occupancy(one, int(THREADS.findall(each[one.name])[0]), architecture) for one in kernels]
    products: dict[str, list[int]] = {}
    for name, counts in instructions.items():
        found = PRODUCT.match(name)
        if found:
            total = products.setdefault(found[1], [0, 0])
            total[0], total[1] = total[0] + counts[0], total[1] + counts[1]
    return {
        "kernels": len(instructions), "compiled": len(kernels), "registers": max(one.registers for one in kernels),
        "spilled": sum(one.spilled for one in kernels), "shared": max(one.shared for one in kernels),
        "products": len(products), "tensor_core": sum(one[0] > 0 for one in products.values()),
        "dp4a": sum(one[0] == 0 and one[1] > 0 for one in products.values()),
        "neither": sum(not any(one) for one in products.values()), "full": sum(one.share == 1 for one in held),
        "by_registers": sum(one.share < 1 and one.limit == "registers" for one in held),
        "by_shared": sum(one.share < 1 and one.limit == "shared" for one in held),
        "occupancy": statistics.mean(one.share for one in held), "seconds": time.perf_counter() - start,
    }  # fmt: skip


def bodies(code: str, architecture: str, folder: Path, by: Toolchain | None) -> Iterator[tuple[str, str]]:
    """Each kernel's name and PTX."""
    _, *parts = ENTRY.split(compiler.ptx(code, architecture, folder, by))
    yield from zip(parts[::2], parts[1::2], strict=True)


def latencies(model: Path, samples: np.ndarray, folder: Path, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each call, by program, one after the other in each round."""
    runtime = require("onnxruntime", "pip install onnxruntime-gpu")
    here = driver.architecture()
    if here is None:
        raise SystemExit("there is no NVIDIA GPU with a driver here")
    bundle = deburr.compile(model, folder / f"{model.stem}.bundle", target=f"nvidia/{here}")
    data = {"image": samples[:1].astype(np.float32)}
    programs: dict[str, Callable[[], object]] = {"deburr": lambda: bundle.run(data)}
    for name, provider in PROVIDERS.items():
        if provider in runtime.get_available_providers():
            session = runtime.InferenceSession(str(model), providers=[provider])
            programs[name] = lambda session=session: session.run(None, data)
        else:
            print(f"{name} is missing: pip install onnxruntime-gpu", file=sys.stderr)
    for call in programs.values():
        for _ in range(5):
            call()
    times: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, call in programs.items():
            start = time.perf_counter()
            call()
            times[name].append((time.perf_counter() - start) * 1e3)
    return times


def lines(name: str, precision: str, times: dict[str, list[float]]) -> Iterator[dict[str, Any]]:
    """Of the second table; "ratio" is against ONNX Runtime on CUDA."""
    peer = times.get("ONNX Runtime, CUDA")
    for program, found in times.items():
        median = statistics.median(found)
        yield {
            "model": name, "precision": precision, "program": program, "p50_ms": median,
            "p90_ms": float(np.percentile(found, 90)), "ratio": median / statistics.median(peer) if peer else None,
        }  # fmt: skip


def compiler_named(end: str) -> Toolchain:
    """The one whose path ends so.

    :raises SystemExit: where there is none.
    """
    for candidate in toolchain.candidates():
        if str(candidate.program).endswith(end):
            return candidate
    raise SystemExit(f"no compiler {end!r} here: {'; '.join(map(toolchain.described, toolchain.candidates()))}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--lite0", type=Path, help="the folder that efficientnet_lite0.py made")
    parser.add_argument("--precisions", nargs="+", choices=["int8", "fp16", "fp32"], default=["int8", "fp16"])
    parser.add_argument("--architectures", nargs="+", default=["sm_75", "sm_80", "sm_90"])
    parser.add_argument("--compiler", help="the end of a compiler's path, of those that `deburr doctor` lists")
    parser.add_argument("--latency", action="store_true")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--json", type=Path, default=Path("build/figures/cuda.json"))
    given = parser.parse_args()
    by = compiler_named(given.compiler) if given.compiler else None
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="deburr-cuda-") as temporary:
        folder = Path(temporary)
        for name, model, samples in models(given.models, given.lite0, folder):
            for precision in given.precisions:
                chosen = of_precision(model, precision, samples, folder)
                if given.latency:
                    found += lines(name, precision, latencies(chosen, samples, folder, given.rounds))
                    continue
                for architecture in given.architectures:
                    row = {"model": name, "precision": precision, "arch": architecture}
                    found.append(row | facts(chosen, architecture, folder, by))
                    print(f"{name} {precision} {architecture}", file=sys.stderr)
    write_json(given.json, found)
    print(table(LATENCY if given.latency else COLUMNS, found))


if __name__ == "__main__":
    main()
