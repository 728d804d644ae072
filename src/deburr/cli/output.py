"""Where the commands write: tables on stdout, progress and remarks on stderr, JSON into a file or on stdout for `-`."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

INTERRUPTED = 130  # the exit status, as shells count a death by SIGINT


def say(text: str) -> None:
    """A line on stderr: progress, timing, remarks."""
    sys.stderr.write(text + "\n")


def put(text: str) -> None:
    """A line on stdout: a result."""
    sys.stdout.write(text + "\n")


@contextlib.contextmanager
def timed(what: str) -> Iterator[None]:
    """Say on stderr how long it took."""
    start = time.perf_counter()
    yield
    say(f"{what} in {time.perf_counter() - start:.1f} s")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, left: int = 1) -> None:
    """Print a table on stdout, as wide as it needs to be; the first `left` columns are text, the others numbers."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(line[index]) for line in [list(columns), *cells]) for index in range(len(columns))]
    for line in [list(columns), ["-" * width for width in widths], *cells]:
        aligned = [
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        put("  ".join(aligned).rstrip())


def write_json(document: object, path: Path | None) -> None:
    """Write a document whole or not at all; `-` is stdout, None is nowhere."""
    if path is None:
        return
    text = json.dumps(document, indent=2, ensure_ascii=False, default=str) + "\n"
    if str(path) == "-":
        sys.stdout.write(text)
        return
    from deburr.report import write_text

    write_text(path, text)


def require_writable(*paths: Path | None) -> None:
    """Refuse now what could not be written after minutes of work.

    :raises DeburrError: E109.
    """
    from deburr.ir.errors import DeburrError

    for path in paths:
        if path is None or str(path) == "-" or (path.parent.is_dir() and os.access(path.parent, os.W_OK)):
            continue
        why = "the folder may not be written to" if path.parent.is_dir() else "there is no such folder"
        raise DeburrError("E109", "cannot write", where=str(path), why=why, hint="choose a folder that can be written to")


def quiet(path: Path | None) -> bool:
    """Whether stdout belongs to the JSON."""
    return path is not None and str(path) == "-"


def progress(items: Iterable[Any], total: int, description: str | Callable[[], str]) -> Iterator[Any]:
    """A progress bar on stderr where that is a terminal; elsewhere a line after each item for a description that changes.

    A bar inside the loop of another one stands below it.
    """
    if not sys.stderr.isatty():
        for item in items:
            yield item
            if callable(description):
                say(description())
        return
    with _bars() as bars:
        task = bars.add_task(description() if callable(description) else description, total=total)
        try:
            for item in items:
                yield item
                bars.update(task, advance=1, description=description() if callable(description) else description)
        finally:
            bars.remove_task(task)


_running: list[Any] = []  # the display that stands on the terminal: there can be one only


@contextlib.contextmanager
def _bars() -> Iterator[Any]:
    """The display that stands already, or a new one."""
    if _running:
        yield _running[0]
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bars:
        _running.append(bars)
        try:
            yield bars
        finally:
            _running.clear()


@contextlib.contextmanager
def tuning(seconds: float) -> Iterator[Callable[[Any], None] | None]:
    """What to call after each trial of a search: a bar with the time left and the gain so far, and in the end one line."""
    if not seconds:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    last: list[Any] = []
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("tuning", total=seconds)

        def report(status: Any) -> None:
            last[:] = [status]
            what = f"tuning: {status.trials} trials, kernels {status.gain:.2f}x faster"
            bar.update(task, completed=status.spent_s, description=what)

        yield report
    for status in last:
        say(f"tuned: {status.trials} trials in this run, kernels {status.gain:.2f}x faster than untuned")
