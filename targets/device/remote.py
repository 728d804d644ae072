"""A machine behind a shell as a device: the bundle goes there once, runs there by itself, and what it made is brought back.

Every step can be repeated, and changes nothing where it was done before: so a link that breaks is taken up again, and a run
goes on meanwhile. The folder of a run is named by what is asked; a result that nobody could fetch is there for whoever asks
again.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import shlex
import tarfile
import tempfile
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deburr.ir.errors import DeburrError
from deburr.ir.types import Array
from deburr.targets import manifest as manifests
from deburr.targets.device import files, runner
from deburr.targets.device.files import LOADER, RUNNER
from deburr.targets.device.session import Link
from deburr.targets.device.shell import Failed, Lost, Shell

if TYPE_CHECKING:
    from deburr.targets.target import Target

DELAYS_S = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)  # between the attempts to take a link up again


@dataclass(frozen=True)
class Remote:
    """A Linux that a shell reaches. Bundles are kept in the user's cache there, below ``deburr/bundles``."""

    shell: Shell

    def run(
        self, bundle: Path, arrays: Sequence[Array], *, threads: int | None = None, calls: int = 1
    ) -> tuple[list[Array], list[float]]:
        """Outputs, and the milliseconds of each call by the device's own clock.

        :param arrays: the inputs in the bundle's order, any number of samples.
        :raises DeburrError: E405 no client, E501 a bundle without a runner, E505 the device cannot be reached or was lost, its
            disk is full, E504 the run failed or took too long, and what the runner says (E502, E503).
        """
        runner.require_runner(bundle)
        if self.shell.is_bare and not (bundle / LOADER).exists():
            raise DeburrError(
                "E501", "the bundle brings no C library", where=str(bundle), why=f"{self.shell} has none that it can use",
                hint="compile it with --target android/... --runtime",
            )  # fmt: skip
        cache = self._greet(manifests.read(bundle).architecture, bundle)
        inputs = {f"inputs/input{index}.npy": _npy(array) for index, array in enumerate(arrays)}
        options = " ".join(runner.arguments(threads, calls))
        there, work = f"{cache}/bundles/{_name(bundle)}", f"{cache}/runs/{_digest([_name(bundle), options, *inputs.values()])}"
        self._place(there, {path.relative_to(bundle).as_posix(): path.read_bytes() for path in _files(bundle)})
        self._place(work, inputs)
        self._start(work, f"{self._runner(there)} {shlex.quote(there)} inputs outputs {options}")
        self._wait(work)
        return self._fetch(work)

    def links(self, target: Target) -> list[Link]:
        """One: a server that speaks through the shell's own streams, so that no port is opened anywhere.

        :raises DeburrError: E405 no client or no runtime, E503 another architecture, E505 the device cannot be reached.
        """
        cache = self._greet(target.architecture, f"target {target.name!r}")
        with tempfile.TemporaryDirectory(prefix="deburr-runtime-") as name:
            files.collect(Path(name), target, system=self.shell.is_bare)
            found = {key: path.read_bytes() for key, path in files.sources(Path(name)).items() if "/" not in key}
        there = f"{cache}/runtimes/{_digest(found.values())}"
        self._place(there, found)
        return [Link(str(self.shell), tuple(self.shell.command(f"exec {self._runner(there)} --serve-stdio")))]

    def _runner(self, folder: str) -> str:
        """What starts it; where the C library comes with it, through that one's own loader."""
        loader = f"{shlex.quote(f'{folder}/{LOADER}')} --library-path {shlex.quote(folder)} " if self.shell.is_bare else ""
        return loader + shlex.quote(f"{folder}/{RUNNER}")

    def _greet(self, architecture: str, bundle: Path | str) -> str:
        """The folder to work in. A device that does not answer at first is not waited for: its name may be wrong."""
        try:
            said = self.shell.run('uname -m; printf %s "${XDG_CACHE_HOME:-$HOME/.cache}/deburr"').decode()
        except (Lost, Failed) as error:
            raise DeburrError("E505", "the device cannot be reached", where=str(self.shell), why=str(error)) from error
        found, _, cache = said.partition("\n")
        if found != architecture:
            raise DeburrError(
                "E503", "the bundle is for another machine", where=str(bundle),
                why=f"it is for {architecture}, {self.shell} is {found}", hint="compile it with the device as --target",
            )  # fmt: skip
        return cache

    def _place(self, folder: str, files: Mapping[str, bytes]) -> None:
        """A folder with these files, which appears whole or not at all; nothing where it is there already."""
        if self._patiently(f"test -d {shlex.quote(folder)} && echo here || echo missing").split() == [b"here"]:
            return
        whole, part, parent = map(shlex.quote, (folder, f"{folder}.{uuid.uuid4().hex}", folder.rpartition("/")[0]))
        unpack = f"mkdir -p {parent} {part} && tar -xf - -C {part} && {{ test -d {whole} || mv {part} {whole}; }}"
        self._patiently(f"{unpack}; status=$?; rm -rf {part}; exit $status", _tar(files))

    def _start(self, work: str, command: str) -> None:
        """Let it run without us, once."""
        detached = shlex.quote(f"{command} >times 2>errors; echo $? >status.part; mv status.part status")
        self._patiently(
            f"cd {shlex.quote(work)} && mkdir -p outputs && if mkdir started 2>/dev/null; then "
            f"nohup sh -c {detached} </dev/null >/dev/null 2>&1 & echo $! >pid; fi"
        )

    def _wait(self, work: str) -> None:
        folder, deadline = shlex.quote(work), time.monotonic() + runner.TIME_LIMIT_S
        asking = (
            f"cd {folder} && n=0; while [ ! -e status ] && [ $n -lt 50 ] && kill -0 $(cat pid) 2>/dev/null; "
            "do sleep 0.1; n=$((n+1)); done; "
            "if [ -e status ]; then echo done; elif kill -0 $(cat pid) 2>/dev/null; then echo running; "
            "elif [ -e status ]; then echo done; else echo dead; fi"
        )
        while (state := self._patiently(asking).decode().strip()) == "running":
            if time.monotonic() > deadline:
                self._patiently(f"cd {folder} && kill $(cat pid); rm -rf {folder}")
                raise runner.out_of_time(str(self.shell))
        if state != "done":
            self._patiently(f"rm -rf {folder}")
            raise DeburrError("E504", "the run ended without a result", where=str(self.shell), why="was the device restarted?")

    def _fetch(self, work: str) -> tuple[list[Array], list[float]]:
        folder = shlex.quote(work)
        status = int(self._patiently(f"cat {folder}/status"))
        if status:
            text = self._patiently(f"cat {folder}/errors").decode(errors="replace")
            self._patiently(f"rm -rf {folder}")
            raise runner.failure(text, status, str(self.shell))
        times = runner.milliseconds(self._patiently(f"cat {folder}/times").decode())
        count = len(self._patiently(f"ls {folder}/outputs").split())
        files = (self._patiently(f"cat {folder}/outputs/output{index}.npy") for index in range(count))
        outputs = [np.load(io.BytesIO(file), allow_pickle=False) for file in files]
        self._patiently(f"rm -rf {folder}")
        return outputs, times

    def _patiently(self, command: str, given: bytes = b"") -> bytes:
        """What a command prints that does no harm if it runs twice; a broken link is taken up again."""
        for delay in DELAYS_S:
            with contextlib.suppress(Lost):
                return self._once(command, given)
            time.sleep(delay)
        try:
            return self._once(command, given)
        except Lost as error:
            raise DeburrError(
                "E505", "the device was lost", where=str(self.shell), why=str(error),
                hint="what runs there goes on: the same command again brings its results",
            ) from error  # fmt: skip

    def _once(self, command: str, given: bytes) -> bytes:
        try:
            return self.shell.run(command, given)
        except Failed as error:
            raise DeburrError("E505", "the device failed", where=str(self.shell), why=error.text) from error


def _name(bundle: Path) -> str:
    """Of a bundle, by what it holds: the manifest has the hashes of the rest."""
    return _digest([(bundle / manifests.FILE).read_bytes()])


def _files(bundle: Path) -> Iterable[Path]:
    return [bundle / manifests.FILE, *(bundle / name for name in sorted(manifests.read(bundle).files))]


def _digest(parts: Iterable[str | bytes]) -> str:
    found = hashlib.sha256()
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        found.update(len(content).to_bytes(8, "little") + content)
    return found.hexdigest()[:32]


def _npy(array: Array) -> bytes:
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(array))
    return file.getvalue()


def _tar(files: Mapping[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755 if name in (RUNNER, LOADER) else 0o644
            archive.addfile(entry, io.BytesIO(content))
    return made.getvalue()
