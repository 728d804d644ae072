"""Linkers: the C compiler of this machine, or one for another; and whether what it made fits the device."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deburr.ir.errors import DeburrError
from deburr.targets.elf import Elf, version
from deburr.targets.features import architecture_here

if TYPE_CHECKING:
    from deburr.targets.target import Target

DEFAULT_GLIBC = "2.28"  # of 2018: every system that is still looked after has it
SHARED = (
    "-shared",
    "-fPIC",
    "-O2",
    "-pthread",
    "-s",
    "-Wl,--build-id=none",
)  # no symbols, paths, id: equal inputs, equal bytes
PARALLEL = Path(__file__).with_name("device") / "parallel.c"  # the threads of a library of ours
MACH_O_ARM64 = bytes.fromhex("cffaedfe0c000001")  # how such an object file begins
# What a library of ours may ask of a device: the C library and nothing else. TVM's runtime is loaded before it.
NEEDED = frozenset({"libc.so.6", "libm.so.6", "libpthread.so.0", "libc.so", "libm.so", "libdl.so", "ld-linux-aarch64.so.1"})


def find(target: Target, named: str | None = None) -> tuple[str, ...]:
    """The command that links for `target`; the archiver for Apple's systems, whose own tools have to link.

    The C compiler of this machine for its own kind; for others zig (`pip install ziglang`, a cross compiler with the C
    libraries of many systems), else Debian's cross compiler.

    :param named: a compiler of the user's choice, for instance the clang of an Android NDK.
    :raises DeburrError: E405.
    """
    if named is not None:
        return _named(named)
    if is_static(target):
        return _archiver(target)
    if target.triple.endswith("-android"):
        raise DeburrError(
            "E405", "no linker for Android", where=f"target {target.name!r}", why="its C library comes with the NDK",
            hint="--linker NDK/toolchains/llvm/prebuilt/linux-x86_64/bin/aarch64-linux-android29-clang",
        )  # fmt: skip
    if target.architecture == architecture_here() and not target.glibc:
        return (find_host(),)
    return cross_compiler(target)


def cross_compiler(target: Target, *, cpp: bool = False) -> tuple[str, ...]:
    """A C or C++ compiler for another kind of machine, which links too: zig, else Debian's.

    :raises DeburrError: E405.
    """
    if importlib.util.find_spec("ziglang") is not None:
        return (*zig("c++" if cpp else "cc"), *zig_target(target))
    name = f"{target.triple}-{'g++' if cpp else 'gcc'}"
    debian = shutil.which(name)
    if debian is None:
        raise DeburrError(
            "E405", f"no {'C++ compiler' if cpp else 'linker'} for {target.architecture}", where=f"target {target.name!r}",
            why=f"neither ziglang nor {name} is installed", hint="pip install 'deburr[cross]'",
        )  # fmt: skip
    return (debian,)


def find_host(*names: str) -> str:
    """The C compiler of this machine, or the first of other programs.

    :raises DeburrError: E405.
    """
    names = names or ("cc", "gcc", "clang")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        what, package = ("C++", "g++") if "c++" in names else ("C", "gcc")
        raise DeburrError(
            "E405", f"no {what} compiler", why=f"none of {', '.join(names)} is on the PATH", hint=f"apt-get install {package}"
        )
    return found


def zig(tool: str) -> tuple[str, ...]:
    """One of zig's tools ("cc", "c++") as a command."""
    return (sys.executable, "-m", "ziglang", tool)


def zig_target(target: Target) -> tuple[str, ...]:
    """The arguments that make zig link for a target, with the C library that the device has."""
    return ("-target", f"{target.architecture}-linux-gnu.{target.glibc or DEFAULT_GLIBC}")


def is_static(target: Target) -> bool:
    """Whether the device's own tools have to link: the library is an archive of object files then."""
    return "-apple-" in target.triple


def library_name(target: Target) -> str:
    """What the library is called in the bundle."""
    return "model.a" if is_static(target) else "model.so"


def link(command: Sequence[str], objects: Sequence[str | Path], output: Path, *, static: bool = False) -> None:
    """A shared library out of object files, or an archive of them.

    :raises DeburrError: E403 where the linker fails.
    """
    shared = [*SHARED, "-o", str(output), *map(str, objects), str(PARALLEL), "-lm"]
    line = [*command, *([str(output), *map(str, objects)] if static else shared)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise DeburrError("E403", "linking failed", where=command[0], why=last, hint="is it a compiler for the target?")


class Linker:
    """What TVM's export hands its object files to."""

    object_format = "o"

    def __init__(self, command: Sequence[str], *, static: bool = False) -> None:
        self.command, self.static = command, static

    def __call__(self, output: str, objects: list[str], **_: Any) -> None:
        link(self.command, objects, Path(output), static=self.static)


def check(library: Path, target: Target, needed: frozenset[str] = NEEDED) -> None:
    """Whether a device of this kind can load the library.

    :raises DeburrError: E406 where it is for another architecture, wants a newer C library, or other libraries.
    """
    if is_static(target):
        _check_archive(library, target)
        return
    found = Elf.read(library)
    where = f"{library.name} for target {target.name!r}"
    if found.architecture != target.architecture:
        raise _misfit(where, f"it is for {found.architecture}, the device is {target.architecture}")
    strange = sorted(set(found.needed) - needed)
    if strange:
        raise _misfit(where, f"it needs {', '.join(strange)}")
    wanted = target.glibc or (DEFAULT_GLIBC if target.architecture != architecture_here() else "")
    if wanted and found.glibc and version(found.glibc) > version(wanted):
        raise _misfit(where, f"it needs glibc {found.glibc}, the device has {wanted}")


def _archiver(target: Target) -> tuple[str, ...]:
    if importlib.util.find_spec("ziglang") is None:
        raise DeburrError(
            "E405", "no archiver for Apple's object files", where=f"target {target.name!r}", why="ziglang is not installed",
            hint="pip install 'deburr[cross]'",
        )  # fmt: skip
    return (*zig("ar"), "--format=darwin", "rcs")


def _check_archive(library: Path, target: Target) -> None:
    content = library.read_bytes()
    if not content.startswith(b"!<arch>") or MACH_O_ARM64 not in content:
        raise _misfit(f"{library.name} for target {target.name!r}", "it is no archive of Mach-O object files for arm64")


def _misfit(where: str, why: str) -> DeburrError:
    return DeburrError(
        "E406", "the library does not fit the device", where=where, why=why, hint="pip install 'deburr[cross]' brings a linker"
    )


def _named(name: str) -> tuple[str, ...]:
    found = shutil.which(name)
    if found is None:
        raise DeburrError(
            "E405", "no such linker", where=f"--linker {name}", why="it is neither on the PATH nor an executable file"
        )
    return (found,)
