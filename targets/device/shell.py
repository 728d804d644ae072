"""What a shell on another machine is, whatever leads there: commands go in, bytes come and go, and the way may break."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from typing import Protocol

TIME_LIMIT_S = 300.0


class Lost(Exception):  # noqa: N818 - a state of the link, which is mended or becomes an error
    """The link broke; whether the command ran is unknown."""


class Failed(Exception):  # noqa: N818
    """The command ran and failed: its status, and the first lines that it said."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text


class Shell(Protocol):
    """A machine's POSIX shell."""

    @property
    def is_bare(self) -> bool:
        """Whether the machine has no GNU C library, so that bundles have to bring one."""
        ...

    def command(self, line: str) -> list[str]:
        """What runs a line of shell there, its streams being those of the command here.

        :raises DeburrError: E405 without a client.
        """
        ...

    def run(self, command: str, given: bytes = b"", limit_s: float = TIME_LIMIT_S) -> bytes:
        """What a command of the shell prints.

        :param given: its standard input.
        :raises Lost: the link broke, or nothing came of it within `limit_s`.
        :raises Failed: its status was not 0.
        :raises DeburrError: E405 without a client.
        """
        ...


def execute(line: Sequence[str], given: bytes, limit_s: float, is_broken: Callable[[int, str], bool]) -> bytes:
    """As `Shell.run`, of what `Shell.command` gave.

    :param is_broken: whether a status and the last line that was said are the client's and not the command's.
    """
    try:
        done = subprocess.run(line, input=given, capture_output=True, check=False, timeout=limit_s)  # noqa: S603
    except subprocess.TimeoutExpired:
        raise Lost(f"no answer within {limit_s:g} s") from None
    said = [text for text in done.stderr.decode(errors="replace").splitlines() if text.strip()]
    last = said[-1].strip() if said else f"status {done.returncode}"
    if done.returncode < 0 or (done.returncode and is_broken(done.returncode, last)):
        raise Lost(last)
    if done.returncode:
        raise Failed(done.returncode, " | ".join(said[:2]) or last)
    return done.stdout
