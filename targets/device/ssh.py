"""A shell on another machine, through OpenSSH's client: commands go there, bytes come and go."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from dataclasses import dataclass

from deburr.ir.errors import DeburrError
from deburr.targets.device.shell import TIME_LIMIT_S, execute

CLIENT = "DEBURR_SSH"  # names another client, or gives it options, as GIT_SSH_COMMAND does for git; no shell reads it
# A question for a password would wait for ever, and so would a link that is dead but not closed.
OPTIONS = ("-oBatchMode=yes", "-oConnectTimeout=10", "-oServerAliveInterval=5", "-oServerAliveCountMax=3")
BROKEN = 255  # what ssh ends with when it, and not the command, failed


@dataclass(frozen=True)
class Ssh:
    """A machine's POSIX shell.

    :param host: with the user in front where it is another one, ``pi@board.local``; a name out of ssh's configuration does.
    :param port: None: what ssh's configuration says.
    """

    host: str
    port: int | None = None
    is_bare = False

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
        """As `Shell` says."""
        port = ["-p", str(self.port)] if self.port else []
        return [*_client(), *OPTIONS, *port, "--", self.host, line]

    def run(self, command: str, given: bytes = b"", limit_s: float = TIME_LIMIT_S) -> bytes:
        """As `Shell` says."""
        return execute(self.command(command), given, limit_s, lambda status, _: status == BROKEN)


def _client() -> list[str]:
    words = shlex.split(os.environ.get(CLIENT, "")) or ["ssh"]
    if shutil.which(words[0]) is None:
        raise DeburrError(
            "E405", "no ssh client", where="--device", why=f"there is no {words[0]}", hint="apt-get install openssh-client"
        )
    return words
