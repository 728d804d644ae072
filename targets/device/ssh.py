"""A shell on another machine, through OpenSSH's client: commands go there, bytes come and go."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass

from deburr.ir.errors import DeburrError

CLIENT = "DEBURR_SSH"  # names another client, or gives it options, as GIT_SSH_COMMAND does for git; no shell reads it
# A question for a password would wait for ever, and so would a link that is dead but not closed.
OPTIONS = ("-oBatchMode=yes", "-oConnectTimeout=10", "-oServerAliveInterval=5", "-oServerAliveCountMax=3")
BROKEN = 255  # what ssh ends with when it, and not the command, failed
TIME_LIMIT_S = 300.0


class Lost(Exception):  # noqa: N818 - a state of the link, which is mended or becomes an error
    """The link broke; whether the command ran is unknown."""


class Failed(Exception):  # noqa: N818
    """The command ran and failed: its status, and the first lines that it said."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text


@dataclass(frozen=True)
class Ssh:
    """A machine's POSIX shell.

    :param host: with the user in front where it is another one, ``pi@board.local``; a name out of ssh's configuration does.
    :param port: None: what ssh's configuration says.
    """

    host: str
    port: int | None = None

    @classmethod
    def parse(cls, address: str) -> Ssh:
        """Of ``[user@]host[:port]``.

        :raises DeburrError: E901.
        """
        match = re.fullmatch(r"((?:[\w.-]+@)?(?!-)[\w.-]+|(?:[\w.-]+@)?\[[0-9a-fA-F:.]+\])(?::(\d{1,5}))?/?", address)
        if match is None or match.group(1).startswith("-"):
            raise DeburrError(
                "E901",
                f"no machine {address!r}",
                where="--device",
                why="it is not [user@]host[:port]",
                hint="ssh://pi@board.local",
            )
        return cls(match.group(1).replace("[", "").replace("]", ""), int(match.group(2)) if match.group(2) else None)

    def __str__(self) -> str:
        return f"ssh://{self.host}" + (f":{self.port}" if self.port else "")

    def command(self, line: str) -> list[str]:
        """What runs a line of shell there, its streams being those of the command here.

        :raises DeburrError: E405 without a client.
        """
        port = ["-p", str(self.port)] if self.port else []
        return [*_client(), *OPTIONS, *port, "--", self.host, line]

    def run(self, command: str, given: bytes = b"", limit_s: float = TIME_LIMIT_S) -> bytes:
        """What a command of the shell prints.

        :param given: its standard input.
        :raises Lost: the link broke, or nothing came of it within `limit_s`.
        :raises Failed: its status was not 0.
        :raises DeburrError: E405 without a client.
        """
        line = self.command(command)
        try:
            done = subprocess.run(line, input=given, capture_output=True, check=False, timeout=limit_s)  # noqa: S603
        except subprocess.TimeoutExpired:
            raise Lost(f"no answer within {limit_s:g} s") from None
        said = [text for text in done.stderr.decode(errors="replace").splitlines() if text.strip()]
        last = said[-1].strip() if said else f"status {done.returncode}"
        if done.returncode == BROKEN or done.returncode < 0:
            raise Lost(last)
        if done.returncode:
            raise Failed(done.returncode, " | ".join(said[:2]) or last)
        return done.stdout


def _client() -> list[str]:
    words = shlex.split(os.environ.get(CLIENT, "")) or ["ssh"]
    if shutil.which(words[0]) is None:
        raise DeburrError(
            "E405", "no ssh client", where="--device", why=f"there is no {words[0]}", hint="apt-get install openssh-client"
        )
    return words
