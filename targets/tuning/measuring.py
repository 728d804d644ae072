"""Measuring in a process apart: one worker for all trials, a limit for each, and a new worker after every crash or hang."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from types import TracebackType
from typing import Any

from deburr.ir.errors import DeburrError
from deburr.targets.device.session import Link
from deburr.targets.schedules.search import to_fields
from deburr.targets.schedules.tile import ConvSchedule
from deburr.targets.target import Target
from deburr.targets.tuning.protocol import CRASHED, HUNG, Outcome

ATTEMPTS = 4  # a candidate that took so many workers with it is given up: a worker may die of something else
LIMIT_S = 30.0  # for one request, the start of the worker and its builds included
DEVICE_LIMIT_S = 180.0  # that, the linking of what is built, and a slow way there and back
DELAYS_S = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)  # between the attempts to reach a device


def worker_command() -> list[str]:
    """The worker as a command; tests put another in its place."""
    return [sys.executable, "-m", "deburr.targets.tuning.worker"]


class WorkerMeasure:
    """`Measure` by a worker process.

    :param threads: of the kernels that it times.
    :param limit_s: seconds that one request may take before the worker counts as hung; None: what suits the place.
    :param link: a device on which the kernels are timed, if not here.
    """

    def __init__(self, target: Target, threads: int, limit_s: float | None = None, link: Link | None = None) -> None:
        self.target, self.threads, self._link = target, threads, link
        self.limit_s = limit_s or (LIMIT_S if link is None else DEVICE_LIMIT_S)
        self.lost = 0  # workers that died or hung
        self._stopped = False
        self._process: subprocess.Popen[bytes] | None = None
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - __exit__ closes it
        self._partial = b""

    def __enter__(self) -> WorkerMeasure:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end()
        self._errors.close()

    def measure(self, workload: str, schedules: Sequence[ConvSchedule], rounds: int) -> list[Outcome]:
        """As `Measure` says; the same request goes to a new worker up to `ATTEMPTS` times."""
        request = {
            "workload": workload, "target": {**asdict(self.target), "tvm": dict(self.target.tvm)}, "threads": self.threads,
            "schedules": [to_fields(schedule) for schedule in schedules], "rounds": rounds,
            "link": None if self._link is None else self._link.to_json(),
        }  # fmt: skip
        # A tracker's boards come and go, and the others wait for the one that is measured last.
        status, attempts, delays = CRASHED, ATTEMPTS, list(DELAYS_S[: 1 if self._link and self._link.key else None])
        while attempts and not self._stopped:
            answer, status = self._ask(request)
            if answer is not None and "outcomes" in answer:
                return [Outcome(**{**given, "ratios": tuple(given.get("ratios", ()))}) for given in answer["outcomes"]]
            self.lost += 1
            self._end()
            if answer is None:
                attempts -= 1
            else:
                _wait(answer, delays)
        return [Outcome(status, why=self._last_words()) for _ in schedules]

    def stop(self) -> None:
        """As `Measure` says."""
        self._stopped = True
        self._end()

    def _ask(self, request: dict[str, Any]) -> tuple[dict[str, Any] | None, str]:
        """The answer, or None and what became of the worker."""
        process = self._process or self._start()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            return None, CRASHED
        line, status = self._line(process)
        try:
            return (None if line is None else json.loads(line)), status
        except ValueError:
            return None, CRASHED

    def _line(self, process: subprocess.Popen[bytes]) -> tuple[bytes | None, str]:
        """The next line of the worker's output within the limit."""
        assert process.stdout is not None
        deadline = time.monotonic() + self.limit_s
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._partial:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    return None, HUNG
                piece = os.read(process.stdout.fileno(), 1 << 16)
                if not piece:
                    return None, CRASHED
                self._partial += piece
        line, _, self._partial = self._partial.partition(b"\n")
        return line, ""

    def _start(self) -> subprocess.Popen[bytes]:
        """A worker in a session of its own: the interrupt at the keyboard is not for it."""
        # The pool as the bundle's runtime sets it up (targets/runtime.py): no core bound, little spinning.
        settings = {"TVM_NUM_THREADS": str(self.threads), "TVM_BIND_THREADS": "0", "TVM_THREAD_POOL_SPIN_COUNT": "3000"}
        self._partial = b""
        self._process = subprocess.Popen(  # noqa: S603
            worker_command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
            env={**os.environ, **settings}, start_new_session=True,
        )  # fmt: skip
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def _last_words(self) -> str:
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - 4000))
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1].strip()[-200:] if lines else ""


def _wait(answer: dict[str, Any], delays: list[float]) -> None:
    """For a device that is out of reach, which says nothing of the candidate.

    :raises DeburrError: what the worker was told, where it was waited for long enough, or waiting does not help.
    """
    if answer["code"] != "E505" or not delays:
        hint = "the same command goes on from what was found" if answer["code"] == "E505" else answer["hint"]
        raise DeburrError(answer["code"], answer["what"], where=answer["where"], why=answer["why"], hint=hint)
    time.sleep(delays.pop(0))
