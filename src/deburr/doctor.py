"""What this installation needs and has."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from deburr.measure import default_threads

OPTIONAL = {
    "torch": "train",
    "onnxscript": "train",
    "matplotlib": "plot",
    "openvino": "openvino",
    "ziglang": "cross",
}  # package -> extra


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the examination; `required` says whether deburr works without it."""

    what: str
    found: str
    present: bool = True
    required: bool = True

    @property
    def is_failure(self) -> bool:
        return self.required and not self.present

    @property
    def mark(self) -> str:
        return "ok" if self.present else ("MISSING" if self.required else "-")

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "failure": self.is_failure}


def examine() -> list[Finding]:
    """Everything, in the order in which it would be mended."""
    return [python(), *packages(), tvm(), compiler(), *processor(), *optional_packages()]


def python() -> Finding:
    return Finding("Python", f"{platform.python_version()} ({sys.executable})", sys.version_info >= (3, 10))


def packages() -> Iterator[Finding]:
    """What the wheel says it needs, against what is installed."""
    for requirement in importlib.metadata.requires("deburr") or []:
        name, wanted, marker = _split(requirement)
        if "extra" in marker or not _applies(marker):
            continue
        version = _version(name)
        yield Finding(
            name, version or f"missing: pip install '{name}{wanted}'", version is not None and _meets(version, wanted)
        )


def tvm() -> Finding:
    """Whether TVM really loads: its libraries want a matching C library."""
    return _attempt("TVM loads", _tvm_with_llvm)


def _tvm_with_llvm() -> str:
    import tvm
    from tvm.target import codegen

    return f"{tvm.__version__} with LLVM {codegen.llvm_version_major()}"


def compiler() -> Finding:
    """The compiler that links a bundle's library, found as `deburr compile` finds it."""
    from deburr.ir.errors import DeburrError
    from deburr.targets.link import find_host

    try:
        found = find_host()
    except DeburrError as error:
        return Finding("C compiler", f"none: {error.hint}", present=False)
    command = [found, "--version"]
    lines = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30).stdout.splitlines()  # noqa: S603
    return Finding("C compiler", found + (f" ({lines[0]})" if lines else ""))


def processor() -> Iterator[Finding]:
    """The CPU as targets see it."""
    yield Finding("threads", f"{default_threads()} of {os.cpu_count()} cores usable")
    yield _attempt("host target", _host)


def _host() -> str:
    from deburr.targets.target import host

    target = host()
    return f"{target.tvm['mcpu']}, schedules {target.isa}, blocks of {target.block} channels"


def optional_packages() -> Iterator[Finding]:
    for name, extra in OPTIONAL.items():
        version = _version(name)
        yield Finding(name, version or f"pip install 'deburr[{extra}]'", version is not None, required=False)
    yield _cuda_compiler()


def _cuda_compiler() -> Finding:
    from deburr.targets.nvidia import toolchain

    told = "; ".join(map(toolchain.described, toolchain.candidates()))
    return Finding("CUDA compiler", told or toolchain.INSTALL, bool(told), required=False)


def _attempt(what: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(what, look())
    except Exception as error:  # whatever it is, the examination goes on and says so
        return Finding(what, f"{type(error).__name__}: {error}", present=False)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _split(requirement: str) -> tuple[str, str, str]:
    """A requirement's name, version condition and marker."""
    text, _, marker = requirement.partition(";")
    match = re.match(r"[\w.-]+", text.strip())
    name = match.group() if match else text.strip()
    return name, text.strip()[len(name) :].strip(), marker.strip()


def _applies(marker: str) -> bool:
    """Markers of this project speak of the Python version only."""
    match = re.search(r"python_version\s*<\s*['\"](\d+)\.(\d+)['\"]", marker)
    return match is None or sys.version_info[:2] < (int(match.group(1)), int(match.group(2)))


def _meets(version: str, wanted: str) -> bool:
    """`==` exactly, `>=` by the numbers; this project uses no other condition."""
    if wanted.startswith("=="):
        return version == wanted[2:]
    return _numbers(version) >= _numbers(wanted.removeprefix(">="))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])
