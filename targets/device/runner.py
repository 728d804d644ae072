"""What every device has to know of the program `run` in a bundle: that it is there, and how it says what went wrong."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from pathlib import Path

from deburr.ir.errors import CODES, DeburrError
from deburr.targets.device.files import RUNNER

TIME_LIMIT_S = 600.0


def require_runner(bundle: Path) -> None:
    """:raises DeburrError: E501."""
    if not (bundle / RUNNER).exists():
        raise DeburrError(
            "E501", "the bundle brings no runner", where=str(bundle), why="it was compiled without one, or for this machine",
            hint="compile it with --target, a Linux device of another architecture, or with --runtime",
        )  # fmt: skip


def arguments(threads: int | None, calls: int) -> Sequence[str]:
    """What follows bundle, inputs and outputs."""
    return ["--calls", str(calls), *(["--threads", str(threads)] if threads else [])]


def milliseconds(text: str) -> list[float]:
    """Of each call, out of what the runner printed."""
    return [float(line) for line in text.split()]


def out_of_time(where: str) -> DeburrError:
    return DeburrError("E504", "the program ran out of time", where=where, why=f"{TIME_LIMIT_S:g} s were not enough")


def failure(text: str, status: int, where: str) -> DeburrError:
    """What the runner said, with the code that it gave.

    :param status: of its end; negative, or above 128 as a shell counts, where a signal ended it.
    """
    lines = text.strip().splitlines()
    for line in lines:
        match = re.fullmatch(r"error\[(E\d+)\]: (.*)", line)
        if match and match.group(1) in CODES:
            return DeburrError(match.group(1), match.group(2))
    number = -status if status < 0 else status - 128
    known = number in {one.value for one in signal.Signals}
    died = f"died by {signal.Signals(number).name}" if known else f"exit status {status}"
    return DeburrError("E504", "the program failed", where=where, why=": ".join([died, *lines[-1:]]))
