"""Machines behind TVM's RPC as devices: a server of ours or TVM's own, or whatever board a tracker gives away."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deburr.ir.errors import DeburrError
from deburr.ir.types import Array
from deburr.targets.device import runner, session
from deburr.targets.device.session import Link

if TYPE_CHECKING:
    from deburr.targets.target import Target

DELAYS_S = (1.0, 4.0, 15.0)  # between the attempts after a session broke
MOST_BOARDS = 16


class _Lost(Exception):  # noqa: N818 - becomes an error, or another attempt
    pass


@dataclass(frozen=True)
class Rpc:
    """A server's address; with a key, a tracker's."""

    link: Link

    @classmethod
    def parse(cls, address: str) -> Rpc:
        """Of ``host:port`` or ``host:port/key``.

        :raises DeburrError: E901.
        """
        match = re.fullmatch(r"([\w.-]+|\[[0-9a-fA-F:.]+\]):(\d{1,5})(?:/([\w.-]*))?", address)
        if match is None:
            raise DeburrError(
                "E901", f"no server {address!r}", where="--device", why="it is not host:port, or a tracker's host:port/key",
                hint="rpc://127.0.0.1:9090",
            )  # fmt: skip
        return cls(Link(f"rpc://{address}", (), match.group(1).strip("[]"), int(match.group(2)), match.group(3) or ""))

    def run(
        self, bundle: Path, arrays: Sequence[Array], *, threads: int | None = None, calls: int = 1
    ) -> tuple[list[Array], list[float]]:
        """Outputs, and the milliseconds of each call by the device's own clock. A session that breaks is begun anew.

        :param arrays: the inputs in the bundle's order, any number of samples that it takes.
        :raises DeburrError: E505 the device cannot be reached or was lost, E503 it is another machine, E504 the run failed.
        """
        for delay in DELAYS_S:
            with contextlib.suppress(_Lost):
                return self._once(bundle, arrays, threads, calls)
            time.sleep(delay)
        try:
            return self._once(bundle, arrays, threads, calls)
        except _Lost as lost:
            raise DeburrError("E505", "the device was lost", where=self.link.where, why=str(lost)) from lost

    def links(self, target: Target) -> list[Link]:
        """One for each board."""
        return [self.link] * min(session.boards(self.link), MOST_BOARDS)

    def _once(self, bundle: Path, arrays: Sequence[Array], threads: int | None, calls: int) -> tuple[list[Array], list[float]]:
        """In a process of its own, which can be ended where the other end says nothing any more."""
        with tempfile.TemporaryDirectory(prefix="deburr-rpc-") as folder:
            np.savez(Path(folder) / "inputs.npz", *arrays)
            command = [sys.executable, "-m", "deburr.targets.device.rpc_worker", folder]
            request = {"link": self.link.to_json(), "bundle": str(bundle), "threads": threads, "calls": calls}
            try:
                done = subprocess.run(  # noqa: S603
                    command, input=json.dumps(request), capture_output=True, text=True, check=False, timeout=runner.TIME_LIMIT_S
                )
            except subprocess.TimeoutExpired:
                raise runner.out_of_time(self.link.where) from None
            if done.returncode:
                raise _failure(done.stderr, done.returncode, self.link.where)
            with np.load(Path(folder) / "outputs.npz", allow_pickle=False) as archive:
                outputs = [archive[f"arr_{index}"] for index in range(len(archive.files))]
            return outputs, json.loads((Path(folder) / "times.json").read_text())


def _failure(text: str, status: int, where: str) -> Exception:
    found = runner.failure(text, status, where)
    lost = re.search(r"error\[E505\]: the session broke, .*?: (.*)", str(found))
    return found if lost is None else _Lost(lost.group(1))
