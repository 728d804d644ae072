"""qemu in user mode as a device: another architecture's programs here, instruction by instruction. Slow, and exact."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deburr.ir.errors import CODES, DeburrError
from deburr.ir.types import Array
from deburr.targets.device.files import RUNNER

INSTALL = "apt-get install qemu-user-static libstdc++6-arm64-cross"
TIME_LIMIT_S = 600.0


@dataclass(frozen=True)
class Qemu:
    """An emulated CPU.

    :param cpu: as `qemu-aarch64 -cpu help` lists them; "max" has everything.
    :param architecture: what Linux calls it.
    """

    cpu: str = "max"
    architecture: str = "aarch64"

    def run(
        self, bundle: Path, arrays: Sequence[Array], *, threads: int | None = None, calls: int = 1
    ) -> tuple[list[Array], list[float]]:
        """Outputs, and the milliseconds of each call (of the emulation: they say nothing of a device).

        :param arrays: the inputs in the bundle's order, any number of samples.
        :raises DeburrError: E405 no qemu, E501 a bundle without a runner, and what the runner says (E502, E503, E504).
        """
        if not (bundle / RUNNER).exists():
            raise DeburrError(
                "E501", "the bundle brings no runner", where=str(bundle),
                why="it was compiled without one, or for this machine",
                hint="compile it with --target, a Linux device of another architecture",
            )  # fmt: skip
        with tempfile.TemporaryDirectory(prefix="deburr-qemu-") as folder:
            given, made = Path(folder) / "inputs", Path(folder) / "outputs"
            given.mkdir()
            made.mkdir()
            for index, array in enumerate(arrays):
                np.save(given / f"input{index}.npy", np.ascontiguousarray(array))
            command = [*self._emulator(), str(bundle / RUNNER), str(bundle), str(given), str(made), "--calls", str(calls)]
            done = self._execute(command + (["--threads", str(threads)] if threads else []), bundle)
            count = len(list(made.glob("output*.npy")))
            outputs = [np.load(made / f"output{index}.npy", allow_pickle=False) for index in range(count)]
        return outputs, [float(line) for line in done.split()]

    def _emulator(self) -> list[str]:
        names = (f"qemu-{self.architecture}-static", f"qemu-{self.architecture}")
        found = next(filter(None, map(shutil.which, names)), None)
        libraries = Path(os.environ.get("QEMU_LD_PREFIX", f"/usr/{self.architecture}-linux-gnu"))
        missing = [names[0]] if found is None else []
        wanted = [libraries / "lib" / name for name in ("libc.so.6", "libstdc++.so.6")]
        missing += [str(path) for path in wanted if not path.exists()]
        if found is None or missing:
            raise DeburrError(
                "E405", f"{self.architecture} cannot be emulated", where="--device qemu", why=f"there is no {missing[0]}",
                hint=INSTALL,
            )  # fmt: skip
        return [found, "-cpu", self.cpu, "-L", str(libraries)]

    def _execute(self, command: list[str], bundle: Path) -> str:
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIME_LIMIT_S)  # noqa: S603
        except subprocess.TimeoutExpired:
            raise DeburrError(
                "E504", "the program ran out of time", where=str(bundle), why=f"{TIME_LIMIT_S:g} s were not enough"
            ) from None
        if done.returncode:
            raise _failure(done.stderr, done.returncode, bundle)
        return done.stdout


def _failure(text: str, status: int, bundle: Path) -> DeburrError:
    """What the runner said, with the code that it gave."""
    lines = text.strip().splitlines()
    for line in lines:
        match = re.fullmatch(r"error\[(E\d+)\]: (.*)", line)
        if match and match.group(1) in CODES:
            return DeburrError(match.group(1), match.group(2))
    died = f"died by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
    return DeburrError("E504", "the program failed", where=str(bundle), why=": ".join([died, *lines[-1:]]))
