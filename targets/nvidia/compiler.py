"""NVIDIA's compiler: where it is, and what it makes of the kernels. It needs no GPU."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deburr.ir.errors import DeburrError
from deburr.targets.nvidia import source

INSTALL = "pip install 'deburr[cuda]'"
# No fast math: a division stays one, and exp is right to the last places. Requantization asks for neither.
OPTIONS = ("-O3", "-w", "-std=c++17")
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


def find() -> Path:
    """nvcc: on the PATH, or out of the wheel.

    :raises DeburrError: E405.
    """
    named = shutil.which("nvcc")
    if named is not None:
        return Path(named)
    spec = importlib.util.find_spec("nvidia")
    for folder in [] if spec is None else list(spec.submodule_search_locations or []):
        found = sorted(Path(folder).glob("cu*/bin/nvcc"))
        if found:
            return found[-1]
    raise DeburrError(
        "E405", "no CUDA compiler", why="nvcc is neither on the PATH nor installed as a wheel", hint=INSTALL
    )  # fmt: skip


def cubin(code: str, architecture: str, folder: Path) -> tuple[bytes, list[Kernel]]:
    """Machine code for an architecture ("sm_80"), and ptxas's facts.

    :param folder: for files on the way.
    :raises DeburrError: E405, E403 where the compiler fails: also where it does not know the architecture (any more).
    """
    given, made = folder / "kernels.cu", folder / f"kernels.{architecture}.cubin"
    given.write_text(source.complete(code), encoding="utf-8")
    told = _run(find(), [*OPTIONS, f"-arch={architecture}", "-cubin", "-Xptxas", "-v", "-o", str(made), str(given)])
    return made.read_bytes(), facts(told)


def ptx(code: str, architecture: str, folder: Path) -> str:
    """The assembly that ptxas gets, in which instructions can be counted.

    :raises DeburrError: as `cubin`.
    """
    given, made = folder / "kernels.cu", folder / f"kernels.{architecture}.ptx"
    given.write_text(source.complete(code), encoding="utf-8")
    _run(find(), [*OPTIONS, f"-arch={architecture}", "-ptx", "-o", str(made), str(given)])
    return made.read_text(encoding="utf-8")


def bind(cubins: dict[str, bytes], folder: Path) -> bytes:
    """One file that a driver takes its own machine code from: the cubin itself where there is only one.

    :param cubins: by architecture.
    :raises DeburrError: E403.
    """
    if len(cubins) == 1:
        return next(iter(cubins.values()))
    images = []
    for architecture, content in cubins.items():
        path = folder / f"{architecture}.cubin"
        path.write_bytes(content)
        images.append(f"--image3=kind=elf,sm={architecture.removeprefix('sm_')},file={path}")
    made = folder / "kernels.fatbin"
    _run(find().resolve().parent / "fatbinary", [f"--create={made}", "-64", "--compress-mode", "none", *images])
    return made.read_bytes()


def facts(told: str) -> list[Kernel]:
    """What ``ptxas -v`` tells of each kernel."""
    _, *parts = _ENTRY.split(told)
    found = []
    for name, text in zip(parts[::2], parts[1::2], strict=True):
        numbers = {key: pattern.search(text) for key, pattern in _NUMBERS.items()}
        found.append(Kernel(name, **{key: int(match[1]) if match else 0 for key, match in numbers.items()}))
    return found


def _run(tool: Path, arguments: Sequence[str]) -> str:
    """What a tool of NVIDIA's tells.

    :raises DeburrError: E403, E405.
    """
    command = [str(tool) if tool.exists() else tool.name, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    except OSError as error:
        why = error.strerror or str(error)
        raise DeburrError("E405", "the CUDA compiler is not whole", where=command[0], why=why, hint=INSTALL) from error
    if done.returncode:
        lines = [line.strip() for line in (done.stderr + done.stdout).splitlines() if "error" in line or "fatal" in line]
        why = (lines or [f"exit status {done.returncode}"])[0][:300]
        hint = (
            "an older nvcc on the PATH knows older GPUs"
            if "Unsupported gpu" in why
            else "is it of one release with its headers?"
        )
        raise DeburrError("E403", "the CUDA compiler failed", where=command[0], why=why, hint=hint)
    return done.stderr + done.stdout
