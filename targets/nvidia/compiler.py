"""What NVIDIA's compiler makes of the kernels. It needs no GPU."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deburr.ir.errors import DeburrError
from deburr.targets.nvidia import source, toolchain
from deburr.targets.nvidia.toolchain import Toolchain

# No fast math: a division stays one, and exp is right to the last places. Requantization asks for neither.
OPTIONS = ("-w", "-std=c++17", "--ptxas-options=-v")
_ENTRY = re.compile(r"Compiling entry function '(\w+)'")
_NUMBERS = {name: re.compile(text) for name, text in {
    "spilled": r"(\d+) bytes spill stores", "registers": r"Used (\d+) registers", "shared": r"(\d+) bytes smem"
}.items()}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Kernel:
    """What ptxas says of one.

    :param registers: of a thread.
    :param spilled: bytes that did not fit into them.
    :param shared: bytes of a block of threads.
    """

    name: str
    registers: int
    spilled: int
    shared: int


def cubin(code: str, architecture: str, folder: Path, by: Toolchain | None = None) -> tuple[bytes, list[Kernel]]:
    """Machine code for an architecture ("sm_80"), and ptxas's facts.

    :param folder: for files on the way.
    :param by: the first that knows the architecture if None.
    :raises DeburrError: E405 where no compiler here knows the architecture, E403 where it fails.
    """
    made, told = _compiled("cubin", code, architecture, folder, by)
    return made.read_bytes(), facts(told)


def ptx(code: str, architecture: str, folder: Path, by: Toolchain | None = None) -> str:
    """The assembly that ptxas gets, in which instructions can be counted.

    :raises DeburrError: as `cubin`.
    """
    return _compiled("ptx", code, architecture, folder, by)[0].read_text(encoding="utf-8")


def bind(cubins: dict[str, bytes], folder: Path, by: Toolchain | None = None) -> bytes:
    """One file that a driver takes its own machine code from: the cubin itself where there is only one.

    :param cubins: by architecture.
    :param by: what made that of the oldest architecture, and so knows all of them, if None.
    :raises DeburrError: E403, E405.
    """
    if len(cubins) == 1:
        return next(iter(cubins.values()))
    images = []
    for architecture, content in cubins.items():
        path = folder / f"{architecture}.cubin"
        path.write_bytes(content)
        images.append((architecture, path))
    made = folder / "kernels.fatbin"
    chosen = by or toolchain.find(min(cubins, key=lambda name: int(name.removeprefix("sm_"))))
    if not chosen.binder.exists():
        raise DeburrError(
            "E405", "the CUDA compiler is not whole", where=str(chosen.binder), why="it is missing", hint=toolchain.INSTALL
        )
    _run(chosen.bind(images, made))
    return made.read_bytes()


def _compiled(kind: str, code: str, architecture: str, folder: Path, by: Toolchain | None) -> tuple[Path, str]:
    """What was made, and what the compiler told."""
    given, made = folder / "kernels.cu", folder / f"kernels.{architecture}.{kind}"
    given.write_text(source.complete(code), encoding="utf-8")
    chosen = by or toolchain.find(architecture)
    return made, _run(chosen.compile(kind, architecture, given, made, OPTIONS))


def facts(told: str) -> list[Kernel]:
    """What ``ptxas -v`` tells of each kernel."""
    _, *parts = _ENTRY.split(told)
    found = []
    for name, text in zip(parts[::2], parts[1::2], strict=True):
        numbers = {key: pattern.search(text) for key, pattern in _NUMBERS.items()}
        found.append(Kernel(name, **{key: int(match[1]) if match else 0 for key, match in numbers.items()}))
    return found


def _run(command: Sequence[str]) -> str:
    """What a tool of NVIDIA's tells.

    :raises DeburrError: E403, E405.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    except OSError as error:
        why = error.strerror or str(error)
        raise DeburrError(
            "E405", "the CUDA compiler is not whole", where=command[0], why=why, hint=toolchain.INSTALL
        ) from error
    if done.returncode:
        lines = [line.strip() for line in (done.stderr + done.stdout).splitlines() if "error" in line or "fatal" in line]
        why = (lines or [f"exit status {done.returncode}"])[0][:300]
        raise DeburrError(
            "E403", "the CUDA compiler failed", where=command[0], why=why, hint="is it of one release with its headers?"
        )
    return done.stderr + done.stdout
