"""CUDA compilers of this machine, and which of them can make code for an architecture: each release leaves old GPUs behind."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from deburr.ir.errors import DeburrError

INSTALL, INSTALL_OLD = "pip install 'deburr[cuda]'", "pip install 'deburr[cuda12]'"
OLDEST = 75  # compute capability that CUDA 13 begins with; 12 begins with 50
HEADERS = ("mma.h", "crt/mma.h", "cuda_fp16.h", "cuda/std/cstdint")  # what TVM's code asks for
_LIBRARY = (sys.executable, "-m", "deburr.targets.nvidia.nvrtc")


@dataclass(frozen=True, slots=True)
class Toolchain:
    """One compiler.

    :param program: nvcc, or NVRTC's library.
    :param binder: what makes one file of several cubins: fatbinary, or nvFatbin's library; it may be missing.
    :param headers: folders of CUDA's headers; nvcc knows its own.
    """

    program: Path
    binder: Path
    headers: tuple[Path, ...] = ()

    @property
    def is_library(self) -> bool:
        """Whether it is NVRTC."""
        return ".so" in self.program.name

    def architectures(self) -> tuple[str, ...]:
        """ "sm_80" and others; none where it does not work."""
        return _architectures(self)

    def compile(self, kind: str, architecture: str, given: Path, made: Path, options: Sequence[str]) -> list[str]:
        """The command that makes a "cubin" or "ptx"."""
        if not self.is_library:
            return [str(self.program), *options, f"-arch={architecture}", f"-{kind}", "-o", str(made), str(given)]
        virtual = architecture if kind == "cubin" else architecture.replace("sm_", "compute_")
        folders = [f"-I{folder}" for folder in self.headers]
        return [*_LIBRARY, kind, str(self.program), str(given), str(made), *options, f"-arch={virtual}", *folders]

    def bind(self, cubins: Sequence[tuple[str, Path]], made: Path) -> list[str]:
        """The command that makes one file of cubins."""
        if ".so" in self.binder.name:
            return [*_LIBRARY, "bind", str(self.binder), str(made), *(f"{name}={path}" for name, path in cubins)]
        images = [f"--image3=kind=elf,sm={name.removeprefix('sm_')},file={path}" for name, path in cubins]
        return [str(self.binder), f"--create={made}", "-64", "--compress-mode", "none", *images]


def find(architecture: str) -> Toolchain:
    """The first compiler of this machine that knows the architecture.

    :raises DeburrError: E405, which says what is here and what to install.
    """
    for candidate in candidates():
        if architecture in candidate.architectures():
            return candidate
    told = [described(candidate) for candidate in candidates()]
    raise DeburrError(
        "E405", f"no CUDA compiler for {architecture}",
        why="; ".join(told) or "neither nvcc nor NVRTC is here, on the PATH, in CUDA_HOME or as a wheel",
        hint=INSTALL if int(architecture.removeprefix("sm_")) >= OLDEST else INSTALL_OLD,
    )  # fmt: skip


def candidates() -> Iterator[Toolchain]:
    """nvcc on the PATH, of CUDA_HOME, out of the wheel; NVRTC out of the wheels of CUDA 13, then of 12, which have no nvcc.

    nvcc is left out where it has no C++ compiler: it would fail.
    """
    if shutil.which("g++") is not None or "NVCC_CCBIN" in os.environ:
        yield from (Toolchain(found, found.resolve().parent / "fatbinary") for found in dict.fromkeys(_programs()))
    yield from _libraries()


def _programs() -> Iterator[Path]:
    on_path = shutil.which("nvcc")
    if on_path is not None:
        yield Path(on_path)
    installed = (Path(os.environ[name]) / "bin" / "nvcc" for name in ("CUDA_HOME", "CUDA_PATH") if name in os.environ)
    yield from (found for found in installed if found.exists())
    for folder in _wheels():
        yield from sorted(folder.glob("cu*/bin/nvcc"), reverse=True)


def _libraries() -> Iterator[Toolchain]:
    """Since CUDA 13 all wheels of a release share a folder; before, each has its own."""
    for folder in _wheels():
        for library in sorted(folder.glob("cu[0-9]*/lib/libnvrtc.so.*"), reverse=True):
            root = library.parent.parent
            yield Toolchain(library, _binder(root), (root / "include", root / "include" / "cccl"))
        for library in folder.glob("cuda_nvrtc/lib/libnvrtc.so.*"):
            headers = tuple(folder / f"cuda_{part}" / "include" for part in ("runtime", "cccl", "nvcc"))
            yield Toolchain(library, _binder(folder / "nvfatbin"), headers)


def _binder(root: Path) -> Path:
    return next(root.glob("lib/libnvfatbin.so.*"), root / "lib" / "libnvfatbin.so")


def described(toolchain: Toolchain) -> str:
    """Where a compiler is, and what it makes code for."""
    known, missing = toolchain.architectures(), _missing_header(toolchain)
    if missing:
        return f"{toolchain.program} has no {missing}"
    return f"{toolchain.program} knows {known[0]} to {known[-1]}" if known else f"{toolchain.program} does not work"


def _missing_header(toolchain: Toolchain) -> str | None:
    folders = toolchain.headers
    return next((name for name in HEADERS if folders and not any((one / name).exists() for one in folders)), None)


@lru_cache
def _architectures(toolchain: Toolchain) -> tuple[str, ...]:
    if _missing_header(toolchain):
        return ()
    program = str(toolchain.program)
    command = [*_LIBRARY, "architectures", program] if toolchain.is_library else [program, "--list-gpu-code"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    except OSError:
        return ()
    found = [word for word in done.stdout.split() if word.startswith("sm_")]
    return tuple(sorted(found, key=lambda word: (len(word), word)))


def _wheels() -> list[Path]:
    spec = importlib.util.find_spec("nvidia")
    return [] if spec is None else [Path(folder) for folder in spec.submodule_search_locations or []]
