"""A shell on an Android device, through its debug bridge. Android has no GNU C library: bundles for it bring one."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from dataclasses import dataclass

from deburr.ir.errors import DeburrError
from deburr.targets.device.shell import TIME_LIMIT_S, execute

CLIENT = "DEBURR_ADB"  # names another client, or gives it options
# The one folder whose files a shell there may execute; it has no home.
FOLDER = "export XDG_CACHE_HOME=${XDG_CACHE_HOME:-/data/local/tmp}; "


@dataclass(frozen=True)
class Adb:
    """A device by its serial number; "" where only one is connected."""

    serial: str = ""
    is_bare = True

    @classmethod
    def parse(cls, serial: str) -> Adb:
        """:raises DeburrError: E901."""
        if serial and not re.fullmatch(r"\w[\w.:-]*", serial):
            raise DeburrError(
                "E901", f"no device {serial!r}", where="--device adb", why="it is no serial number", hint="see `adb devices`"
            )
        return cls(serial)

    def __str__(self) -> str:
        return f"adb:{self.serial}" if self.serial else "adb"

    def command(self, line: str) -> list[str]:
        """As `Shell` says."""
        words = shlex.split(os.environ.get(CLIENT, "")) or ["adb"]
        if shutil.which(words[0]) is None:
            raise DeburrError(
                "E405", "no adb", where=f"--device {self}", why=f"there is no {words[0]}", hint="apt-get install adb"
            )
        return [*words, *(["-s", self.serial] if self.serial else []), "shell", "-T", FOLDER + line]

    def run(self, command: str, given: bytes = b"", limit_s: float = TIME_LIMIT_S) -> bytes:
        """As `Shell` says."""
        return execute(self.command(command), given, limit_s, _is_broken)


def _is_broken(status: int, said: str) -> bool:
    """The client ends with 1 as commands do, and begins what it says with its name."""
    return status == 1 and said.startswith(("adb: ", "error: "))
