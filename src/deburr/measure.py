"""Latency, measured fairly: one worker process per candidate, rounds interleaved, the same threads and inputs for all.

A thread pool that spins after its work steals the core from whoever runs next. So each candidate lives in a process of its own,
rounds go A B C A B C …, and a pause before each turn lets the other pools fall asleep.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from deburr.arrays import write_arrays
from deburr.ir.errors import CODES, DeburrError
from deburr.ir.types import Array

PEERS = ("onnxruntime", "openvino")
PAUSE_S = 0.02  # the other pools stop spinning meanwhile


@dataclass(frozen=True, slots=True)
class Candidate:
    """What is timed: a bundle's directory, or an ONNX file in one of `PEERS`.

    :param threads: other ones than the rest of the run has, and so `batch`: to set a program against itself.
    """

    name: str
    engine: str  # "deburr", "onnxruntime" or "openvino"
    path: Path
    threads: int | None = None
    batch: int | None = None


@dataclass(frozen=True, slots=True)
class Timing:
    """Latency of one call in milliseconds, over all rounds; `ratio` is this median over the first candidate's."""

    name: str
    engine: str
    path: str
    p50_ms: float
    p90_ms: float
    ratio: float
    calls: int


@dataclass(frozen=True, slots=True)
class Measurement:
    """One interleaved run."""

    threads: int
    rounds: int
    batch: int
    inputs: str  # where the inputs came from: the report says so where they are random
    rows: tuple[Timing, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def default_threads() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def candidates(paths: Sequence[str | Path], peers: Sequence[str] = ()) -> list[Candidate]:
    """A bundle is a candidate by itself; a model is one in each of `peers` (ONNX Runtime where none is named).

    :raises DeburrError: E901 for an unknown peer, or for peers without a model; E101 for a path that is not there.
    """
    for peer in peers:
        if peer not in PEERS:
            raise DeburrError("E901", f"no peer {peer!r}", where="--peer", why=f"there are {', '.join(PEERS)}")
    found: list[Candidate] = []
    for path in map(Path, paths):
        if not path.exists():
            raise DeburrError("E101", "no such file or directory", where=str(path), hint="give a bundle or an ONNX file")
        engines = ["deburr"] if path.is_dir() else list(dict.fromkeys(peers)) or ["onnxruntime"]
        found += [Candidate(path.name, engine, path.resolve()) for engine in engines]
    if peers and all(candidate.engine == "deburr" for candidate in found):
        raise DeburrError(
            "E901", "nothing for the peers to run", where=f"--peer {peers[0]}",
            why="a bundle holds no ONNX model", hint="name the ONNX file as well",
        )  # fmt: skip
    return found


def bench(
    entries: Sequence[Candidate],
    *,
    threads: int | None = None,
    data: Mapping[str, Array] | None = None,
    batch: int = 1,
    rounds: int = 20,
    round_ms: float = 100,
    warmup: int = 5,
    seed: int = 0,
    progress: Callable[[Iterator[int], int, str], Iterator[int]] | None = None,
) -> Measurement:
    """Time `entries` side by side.

    :param data: arrays by input name, of which the first `batch` samples are used; None for random ones.
    :param rounds: how often each candidate gets its turn; a turn lasts about `round_ms`, one call at least.
    :param warmup: calls before the first round that do not count.
    :raises DeburrError: what a candidate raised, E504 where its process died, E902 where a peer is not installed.
    """
    threads = threads or default_threads()
    source = "given" if data is not None else f"random (seed {seed})"
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="deburr-bench-")))
        workers = [stack.enter_context(WorkerProcess(entry, entry.threads or threads)) for entry in entries]
        for entry, worker in zip(entries, workers, strict=True):
            size = entry.batch or batch
            worker.ask("prepare", inputs=write_feed(folder, data, size), batch=size, seed=seed, warmup=warmup)
        calls = [max(1, round(round_ms / worker.ask("run", calls=3)["ms"][1])) for worker in workers]
        times: list[list[float]] = [[] for _ in workers]
        turns = iter(range(rounds))
        for _ in progress(turns, rounds, "timing") if progress else turns:
            for worker, count, kept in zip(workers, calls, times, strict=True):
                time.sleep(PAUSE_S)
                kept.extend(worker.ask("run", calls=count)["ms"])
    return Measurement(threads, rounds, batch, source, tuple(_rows(entries, times)))


def write_feed(folder: Path, data: Mapping[str, Array] | None, batch: int) -> str | None:
    """The first `batch` samples as a file for `prepare` of a worker; None for random ones."""
    if data is None:
        return None
    path = folder / f"inputs-{batch}.npz"
    write_arrays(path, {name: np.ascontiguousarray(array[:batch]) for name, array in data.items()})
    return str(path)


def _rows(entries: Sequence[Candidate], times: Sequence[Sequence[float]]) -> Iterator[Timing]:
    first = float(np.median(times[0])) if times else 0.0
    for entry, kept in zip(entries, times, strict=True):
        p50, p90 = (float(figure) for figure in np.percentile(kept, [50, 90]))
        yield Timing(entry.name, entry.engine, str(entry.path), p50, p90, p50 / first, len(kept))


class WorkerProcess:
    """A process that holds one candidate and answers one line of JSON per line of JSON."""

    def __init__(self, candidate: Candidate, threads: int) -> None:
        self.candidate, self.threads = candidate, threads

    def __enter__(self) -> WorkerProcess:
        # The count stands in the environment as well: some pools are made when their library is imported.
        count = str(self.threads)
        environment = {**os.environ, "TVM_NUM_THREADS": count, "OMP_NUM_THREADS": count}
        self._errors = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "deburr.measure_worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, env=environment, text=True,
        )  # fmt: skip
        try:
            self.ask("open", engine=self.candidate.engine, path=str(self.candidate.path), threads=self.threads)
        except BaseException:  # nobody would close what was never entered
            self._close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._close()

    def _close(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Send a command and wait for its answer; what went wrong over there is raised here."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps({"command": command, **arguments}) + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise DeburrError("E504", "the process that was timed died", where=str(self.candidate.path), why=self._last_words())
        answer: dict[str, Any] = json.loads(line)
        if "code" in answer:
            assert answer["code"] in CODES
            raise DeburrError(answer["code"], answer["what"], where=answer["where"], why=answer["why"], hint=answer["hint"])
        return answer

    def _last_words(self) -> str:
        status = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return f"exit status {status}" + (f", {lines[-1]}" if lines else "")
