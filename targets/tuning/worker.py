"""The process that builds and times candidates, one after the other, until its standard input closes.

    python -m deburr.targets.tuning.worker

A line of JSON in, a line out. It is used again for every trial: loading TVM takes as long as several of them. A crash in here
costs the trial it happened in. Kernels run here, or in a session with a device (places.py).
"""

from __future__ import annotations

import json
import os
import statistics
import sys
from functools import lru_cache
from typing import Any

import numpy as np

from deburr.ir.errors import DeburrError
from deburr.ir.types import Array
from deburr.targets.kernels.workload import Workload
from deburr.targets.target import Target
from deburr.targets.tuning.places import Gone, Here, Place, There, Timer
from deburr.targets.tuning.protocol import OK, REFUSED, WRONG

ROUND_S = 0.004  # of calls in one round: short, so that a candidate and the default share the weather
FLOAT_ERROR = 1e-4  # LLVM may fuse or reorder nothing that matters more


class Bench:
    """Candidates of one workload beside its default, on the same random data."""

    def __init__(self, text: str, target: Target, place: Place) -> None:
        from deburr.targets.kernels import build, workload_text

        self.workload, self.target, self.place = workload_text.from_text(text), target, place
        kernel = build.kernel(self.workload, self.target)
        generator = np.random.default_rng(0)
        self.inputs = [_random(argument.name, argument.shape, argument.dtype, generator) for argument in kernel.arguments[:-1]]
        self.output_type = kernel.arguments[-1]
        self.default, self.expected = self._run(kernel)
        self.calls = max(1, int(ROUND_S / max(self.default(3), 1e-7)))

    def measure(self, schedules: list[dict[str, Any]], rounds: int) -> list[dict[str, Any]]:
        """One result per schedule; those that compute something else or do not build are not timed."""
        results, timers = [], []
        for fields in schedules:
            result, timer = self._candidate(fields)
            results.append(result)
            timers.append(timer)
        self._time(results, timers, rounds)
        return results

    def _candidate(self, fields: dict[str, Any]) -> tuple[dict[str, Any], Timer | None]:
        from deburr.targets.kernels import build
        from deburr.targets.schedules.search import from_fields

        try:
            timer, output = self._run(build.kernel(self.workload, self.target, from_fields(fields)))
        except Gone:
            raise
        except Exception as error:  # whatever TVM or LLVM objects to
            return {"status": REFUSED, "why": f"{type(error).__name__}: {str(error).strip()[-200:]}"}, None
        if not _same(self.expected, output, self.workload):
            return {"status": WRONG}, None
        return {"status": OK}, timer

    def _time(self, results: list[dict[str, Any]], timers: list[Timer | None], rounds: int) -> None:
        chosen = [(result, timer) for result, timer in zip(results, timers, strict=True) if timer is not None]
        default: list[float] = []
        times: list[list[float]] = [[] for _ in chosen]
        for _ in range(rounds if chosen else 0):
            default.append(self.default(self.calls))
            for (_, timer), kept in zip(chosen, times, strict=True):
                kept.append(timer(self.calls))
        for (result, _), kept in zip(chosen, times, strict=True):
            result["seconds"], result["default_seconds"] = statistics.median(kept), statistics.median(default)
            result["fastest"] = min(kept) / min(default)
            result["ratios"] = [mine / its for mine, its in zip(kept, default, strict=True)]

    def _run(self, kernel: Any) -> tuple[Timer, Array]:
        """Times so many calls of the kernel; and what it writes: surplus memory is poisoned first."""
        from deburr.targets.schedules import pipeline

        library = pipeline.library(kernel.function, self.target)
        return self.place.run(library, self.inputs, np.full(self.output_type.shape, 77, self.output_type.dtype))


def _random(name: str, shape: tuple[int, ...], dtype: str, generator: np.random.Generator) -> Array:
    """Data over the whole range of its type; a multiplier that spreads the outputs over theirs."""
    if name == "multiplier":
        return generator.uniform(0.5, 2, shape).astype(dtype) / np.float32(10_000)
    if dtype == "float32":
        return generator.standard_normal(shape).astype(dtype)
    bounds = (-1000, 1000) if dtype == "int32" else (0, 256) if dtype == "uint8" else (-127, 128)
    return generator.integers(*bounds, shape).astype(dtype)


def _same(expected: Array, given: Array, workload: Workload) -> bool:
    if getattr(workload, "dtype", "") != "float32":
        return np.array_equal(expected, given)
    scale = float(np.abs(expected).max()) or 1.0
    return bool(np.allclose(given, expected, rtol=0, atol=FLOAT_ERROR * scale))


@lru_cache(maxsize=4)
def _bench(workload: str, target: str, link: str, threads: int) -> Bench:
    return Bench(workload, Target(**json.loads(target)), _place(target, link, threads))


@lru_cache(maxsize=1)
def _place(target: str, link: str, threads: int) -> Place:
    fields = json.loads(link)
    return Here() if fields is None else There(Target(**json.loads(target)), fields, threads)


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """The outcomes; or the fields of an error, where the device is not there or is another."""
    target, link = (json.dumps(request[key], sort_keys=True) for key in ("target", "link"))
    try:
        bench = _bench(request["workload"], target, link, request["threads"])
    except DeburrError as error:
        return {key: getattr(error, key) for key in ("code", "what", "where", "why", "hint")}
    return {"outcomes": bench.measure(request["schedules"], request["rounds"])}


def main() -> None:
    # Libraries write to descriptor 1 as they please; the answers go through a copy of it that they do not know.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        replies.write(json.dumps(answer(json.loads(line))) + "\n")
        replies.flush()


if __name__ == "__main__":
    main()
