"""Building in a process of its own: with limits, with files in and out, and with a log to point at when it dies."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from deburr.ir.errors import DeburrError
from deburr.ir.model import Model
from deburr.ir.types import Array
from deburr.targets.bundle import LIBRARY


@dataclass(frozen=True)
class Job:
    """What the worker gets: lowered models by the names of their functions, the fields of a `Target`, inputs for the check.

    :param inputs: for each function; empty where nothing is to be checked.
    :param linker: the command that links, less its arguments.
    :param schedules: fields of the tuned ones, by the text of the representative workload.
    """

    models: Mapping[str, Model]
    target: dict[str, Any]
    linker: tuple[str, ...]
    threads: int
    inputs: Mapping[str, list[Array]]
    time_limit_s: float
    memory_bytes: int
    schedules: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Built:
    """What came back; the files vanish when the context closes.

    :param outputs: of each function that was given inputs; empty where this CPU cannot run them.
    """

    library: Path
    outputs: dict[str, list[Array]]
    instruction_sets: list[str]
    versions: dict[str, str]
    log: Path


def worker_command(folder: Path) -> list[str]:
    """The worker as a command; tests put another in its place."""
    return [sys.executable, "-m", "deburr.targets.worker", str(folder)]


def arrays_of(folder: Path, function: str, side: str) -> Path:
    """Where the worker's folder has the "inputs" or "outputs" of a function."""
    return folder / f"{function}.{side}.npz"


def read_arrays(path: Path) -> list[Array]:
    """The arrays that `numpy.savez` wrote without names."""
    with np.load(path, allow_pickle=False) as archive:
        return [archive[f"arr_{index}"] for index in range(len(archive.files))]


@contextlib.contextmanager
def build(job: Job) -> Iterator[Built]:
    """Run the worker. On failure its folder stays, because the error names the log in it.

    :raises DeburrError: E403 where it crashed, E404 where it ran out of time, or what it found to be the user's.
    """
    folder = Path(tempfile.mkdtemp(prefix="deburr-build-"))
    _write_job(folder, job)
    try:
        yield _outcome(folder, job, _execute(folder, job))
    except BaseException as error:
        crashed = isinstance(error, DeburrError) and error.code in ("E403", "E404")
        if not crashed:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


def _write_job(folder: Path, job: Job) -> None:
    from deburr.ir.onnx_writer import write

    for function, model in job.models.items():
        write(model, folder / f"{function}.onnx")
    fields = {
        "functions": list(job.models),
        "target": job.target,
        "linker": job.linker,
        "threads": job.threads,
        "memory_bytes": job.memory_bytes,
        "schedules": job.schedules,
    }
    (folder / "job.json").write_text(json.dumps(fields), encoding="utf-8")
    for function, inputs in job.inputs.items():
        np.savez(arrays_of(folder, function, "inputs"), *inputs)


def _execute(folder: Path, job: Job) -> int:
    """The worker's exit status.

    :raises DeburrError: E404.
    """
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603
            worker_command(folder), cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        try:
            return process.wait(job.time_limit_s)
        except subprocess.TimeoutExpired:
            raise DeburrError(
                "E404", "the compiler ran out of time", why=f"{job.time_limit_s:g} s were not enough",
                hint=f"raise time_limit_s; its log: {folder / 'log.txt'}",
            ) from None  # fmt: skip
        finally:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # its own session: the linker goes with it
                process.wait()


def _outcome(folder: Path, job: Job, status: int) -> Built:
    log, answer = folder / "log.txt", folder / "result.json"
    if status != 0 or not answer.exists():
        raise DeburrError(
            "E403", "the compiler failed", why=f"{_fate(status)}; its last words: {_tail(log)}", hint=f"its log: {log}"
        )
    result = json.loads(answer.read_text(encoding="utf-8"))
    if "error" in result:
        code, what, where, why, hint = result["error"]
        raise DeburrError(code, what, where=where, why=why, hint=hint)
    outputs = {function: read_arrays(arrays_of(folder, function, "outputs")) for function in result["ran"]}
    return Built(folder / LIBRARY, outputs, result["instruction_sets"], result["versions"], log)


def _fate(status: int) -> str:
    if status < 0:
        with contextlib.suppress(ValueError):
            return f"the worker died by {signal.Signals(-status).name}"
    return f"the worker ended with status {status}"


def _tail(log: Path) -> str:
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " | ".join(lines[-2:])[-400:] or "none"
