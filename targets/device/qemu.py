"""qemu in user mode as a device: another architecture's programs here, instruction by instruction. Slow, and exact."""

from __future__ import annotations

import difflib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deburr.ir.errors import DeburrError
from deburr.ir.types import Array
from deburr.targets.device.files import RUNNER
from deburr.targets.device.runner import TIME_LIMIT_S, arguments, failure, milliseconds, out_of_time, require_runner

if TYPE_CHECKING:
    from deburr.targets.device.session import Link
    from deburr.targets.target import Target

INSTALL = "apt-get install qemu-user-static libstdc++6-arm64-cross"


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
        :raises DeburrError: E405 no qemu, E901 no such CPU, E501 a bundle without a runner, and what the runner says (E502,
            E503, E504).
        """
        require_runner(bundle)
        with tempfile.TemporaryDirectory(prefix="deburr-qemu-") as folder:
            given, made = Path(folder) / "inputs", Path(folder) / "outputs"
            given.mkdir()
            made.mkdir()
            for index, array in enumerate(arrays):
                np.save(given / f"input{index}.npy", np.ascontiguousarray(array))
            command = [*self._emulator(), str(bundle / RUNNER), str(bundle), str(given), str(made), *arguments(threads, calls)]
            done = self._execute(command, bundle)
            count = len(list(made.glob("output*.npy")))
            outputs = [np.load(made / f"output{index}.npy", allow_pickle=False) for index in range(count)]
        return outputs, milliseconds(done)

    def links(self, target: Target) -> list[Link]:
        """:raises DeburrError: E901."""
        raise DeburrError(
            "E901", "an emulator times nothing", where="--tune, --device qemu",
            why="it takes longest for what a CPU does at once", hint="tune on the device: ssh:// or rpc://",
        )  # fmt: skip

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
        _require_cpu(found, self.cpu)
        return [found, "-cpu", self.cpu, "-L", str(libraries)]

    def _execute(self, command: list[str], bundle: Path) -> str:
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIME_LIMIT_S)  # noqa: S603
        except subprocess.TimeoutExpired:
            raise out_of_time(str(bundle)) from None
        if done.returncode:
            raise failure(done.stderr, done.returncode, str(bundle))
        return done.stdout


@lru_cache
def _require_cpu(emulator: str, cpu: str) -> None:
    """:raises DeburrError: E901 with the nearest names: what qemu itself says comes when a program already starts."""
    listed = subprocess.run([emulator, "-cpu", "help"], capture_output=True, text=True, check=False)  # noqa: S603
    known = [line.strip() for line in listed.stdout.splitlines()[1:] if line.strip()]
    if known and cpu not in known:
        near = difflib.get_close_matches(cpu, known, n=2, cutoff=0.5)
        raise DeburrError(
            "E901", f"no emulated CPU {cpu!r}", where=f"--device qemu:{cpu}", why=f"there are {', '.join(known)}",
            hint=f"did you mean {' or '.join(near)}?" if near else "--device qemu has everything",
        )  # fmt: skip
