"""The other side of `deburr.measure`: holds one candidate, and times calls when asked. One JSON line in, one out."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from deburr.ir.errors import DeburrError
from deburr.ir.samples import read_arrays
from deburr.ir.types import Array, DType, TensorType


class Engine(Protocol):
    """Something to time."""

    inputs: Mapping[str, TensorType]

    def run(self, inputs: Mapping[str, Array]) -> Any: ...


class OnnxRuntime:
    """The peer as its users run it: default graph optimizations, CPU provider."""

    def __init__(self, path: Path, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions share no base of their own
            raise DeburrError("E108", "ONNX Runtime refuses the model", where=str(path), why=str(error)) from error
        self.inputs = {given.name: _type(given.type, given.shape) for given in self._session.get_inputs()}

    def run(self, inputs: Mapping[str, Array]) -> Any:
        return self._session.run(None, inputs)


class OpenVino:
    """OpenVINO tuned for latency, one stream.

    Where the CPU has bfloat16 it would compute float32 models in that. Nobody else does, so it is told not to. What is not
    integer in a quantized model it may compute as it likes.
    """

    def __init__(self, path: Path, threads: int) -> None:
        try:
            import openvino
        except ImportError as error:
            raise DeburrError(
                "E902", "openvino is not installed", where="--peer openvino", hint="pip install 'deburr[openvino]'"
            ) from error
        core, settings = openvino.Core(), {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
        model = core.read_model(str(path))
        if all(node.get_type_name() != "FakeQuantize" for node in model.get_ops()):  # what QuantizeLinear becomes
            settings["INFERENCE_PRECISION_HINT"] = "f32"
        self._compiled = core.compile_model(model, "CPU", settings)
        self._request = self._compiled.create_infer_request()
        self.inputs = {}
        for given in self._compiled.inputs:
            shape = tuple(dim.get_length() if dim.is_static else None for dim in given.get_partial_shape())
            self.inputs[given.get_any_name()] = TensorType(DType.of(given.get_element_type().to_dtype()), shape)

    def run(self, inputs: Mapping[str, Array]) -> Any:
        return self._request.infer(dict(inputs))


class Compiled:
    """A bundle of our own."""

    def __init__(self, path: Path, threads: int) -> None:
        from deburr import api
        from deburr.runner import BundleRunner

        self.bundle = api.open(path, threads=threads)
        runner = BundleRunner(self.bundle)
        self.inputs, self.run = runner.inputs, runner.run


ENGINES = {"onnxruntime": OnnxRuntime, "openvino": OpenVino, "deburr": Compiled}


class Worker:
    """Its methods are the commands."""

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._feed: dict[str, Array] = {}

    def open(self, engine: str, path: str, threads: int) -> dict[str, Any]:
        made: Any = ENGINES[engine](Path(path), threads)
        self._engine = made
        return {}

    def prepare(self, inputs: str | None, batch: int, seed: int, warmup: int) -> dict[str, Any]:
        """Load the inputs or make random ones, and warm up."""
        from deburr.runner import batch_size, check_inputs
        from deburr.synthetic import random_inputs

        assert self._engine is not None
        fixed = batch_size(self._engine.inputs)
        if fixed is not None and fixed != batch:
            raise DeburrError(
                "E303", "the batch does not fit", where=f"batch {batch}", why=f"the program takes {fixed} samples at a time",
                hint=f"use --batch {fixed}",
            )  # fmt: skip
        if inputs is None:
            self._feed = random_inputs(self._engine.inputs, batch, seed)
        else:
            self._feed = {name: array for name, array in read_arrays(inputs).items() if name in self._engine.inputs}
        check_inputs(self._engine.inputs, self._feed)
        self.run(warmup)
        return {}

    def profile(self, calls: int, batch: int) -> dict[str, Any]:
        """Seconds of each function of each of `calls` runs of a bundle's program, what it says of them, and what the machine
        can do."""
        assert isinstance(self._engine, Compiled)
        from deburr.targets import runtime
        from deburr.targets.schedules.ceiling import ceiling
        from deburr.targets.target import Target

        bundle = self._engine.bundle
        runs, manifest = bundle.profile(self._feed, calls), bundle.manifest
        groups = next(program["groups"] for program in manifest["programs"] if program["batch"] == batch)
        used = {group["dtype"] for group in groups if group["macs"]}
        runtime.set_threads(bundle.threads)
        limits = {dtype: ceiling(Target(**manifest["target"]), dtype, bundle.threads) for dtype in sorted(used)}
        return {
            "runs": runs, "groups": groups, "batch": batch, "threads": bundle.threads, "ceilings": limits,
            "remarks": manifest["remarks"],
        }  # fmt: skip

    def run(self, calls: int) -> dict[str, Any]:
        """Milliseconds of each of `calls` calls."""
        assert self._engine is not None
        times = []
        for _ in range(calls):
            start = time.perf_counter_ns()
            self._engine.run(self._feed)
            times.append((time.perf_counter_ns() - start) / 1e6)
        return {"ms": times}


def _type(name: str, shape: list[Any]) -> TensorType:
    """ONNX Runtime's "tensor(float)" as a type."""
    element = name.removeprefix("tensor(").removesuffix(")").upper()
    dims = tuple(dim if isinstance(dim, int) else None for dim in shape)
    return TensorType(DType[element] if element in DType.__members__ else DType.UNDEFINED, dims)


def answer(worker: Worker, request: dict[str, Any]) -> dict[str, Any]:
    """The result of a command, or what went wrong in the parts of a `DeburrError`."""
    commands: dict[str, Callable[..., dict[str, Any]]] = {
        "open": worker.open, "prepare": worker.prepare, "run": worker.run, "profile": worker.profile,
    }  # fmt: skip
    try:
        return commands[request.pop("command")](**request)
    except DeburrError as error:
        return {"code": error.code, "what": error.what, "where": error.where, "why": error.why, "hint": error.hint}
    except Exception as error:
        return {"code": "E504", "what": "running failed", "where": "", "why": f"{type(error).__name__}: {error}", "hint": ""}


def main() -> None:
    # Libraries write to descriptor 1 as they please; the answers go through a copy of it that they do not know.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    worker = Worker()
    for line in sys.stdin:
        replies.write(json.dumps(answer(worker, json.loads(line))) + "\n")
        replies.flush()


if __name__ == "__main__":
    main()
