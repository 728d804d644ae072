"""What a bundle for another machine holds besides the compiled model: a runtime, a program that runs it, its sources."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from deburr.ir.errors import DeburrError
from deburr.targets import link
from deburr.targets.device import runtime_libraries
from deburr.targets.features import architecture_here, cpuinfo_name

if TYPE_CHECKING:
    from deburr.targets.manifest import Manifest, Tensor
    from deburr.targets.target import Target

DESCRIPTION = "bundle.txt"
RUNNER = "run"
LOADER = "ld-linux-aarch64.so.1"
# The GNU C library and what stands on it, for Android, which has another: out of Debian's packages for cross-compiling.
SYSTEM = (LOADER, "libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "libstdc++.so.6", "libgcc_s.so.1")
HEADERS = ("deburr.hpp", "bundle.hpp", "sha256.hpp", "session.hpp", "serve.hpp")
RUNNER_GLIBC = "2.17"  # of 2012, and the first that aarch64 had: one runner for all devices

README = """A model compiled by deburr, with all that a device needs to run it.

    ./run . INPUTS OUTPUTS [--threads N] [--calls N]

INPUTS holds input0.npy, input1.npy, ... in the order of bundle.txt; OUTPUTS is an existing folder. The milliseconds of each
call are printed. The device needs its C and C++ libraries, nothing else.

    ./run --serve 9090

is TVM's RPC server, for `deburr ... --device rpc://HOST:9090`. Whoever reaches it runs code here: it listens on loopback, for a
tunnel (ssh -L 9090:127.0.0.1:9090 DEVICE), unless an address is given, HOST:9090.

To run the model in an application of your own (C++17), without Python:

    c++ -std=c++17 -O2 -I BUNDLE/include application.cpp -ldl

    #include "deburr.hpp"
    deburr::Program program("BUNDLE");
    std::vector<deburr::Array> outputs = program.run({deburr::Array("float32", {1, 3, 224, 224}, pixels)});

The architecture, the CPU and the hashes in bundle.txt are checked before anything is loaded. libtvm_runtime.so and
libtvm_ffi.so are Apache TVM's (Apache License 2.0).
"""


def wanted(target: Target, asked: bool | None) -> bool:
    """Whether a bundle for `target` brings its own runtime. There is one for Linux.

    :param asked: None: if it is for another architecture; bundles for this one mostly run here, on Python's.
    """
    if target.gpu:  # the runner computes on the CPU
        return False
    return target.triple.endswith("-linux-gnu") and (target.architecture != architecture_here() if asked is None else asked)


def on_linux(target: Target) -> Target:
    """An Android device as the Linux that it is underneath: code for the GNU C library, which the bundle then brings."""
    return replace(target, tvm={**target.tvm, "mtriple": "aarch64-linux-gnu"})


def collect(folder: Path, target: Target, *, system: bool = False) -> None:
    """Put the runtime, the runner and its sources into `folder`.

    :param system: the C library too.
    :raises DeburrError: E405 where the runtime or a C++ compiler cannot be had, E406 where they do not fit the device.
    """
    copies = _system_libraries() if system else {}
    copies |= {path.name: path for path in runtime_libraries.find(target)}
    copies |= {f"include/{name}": Path(__file__).with_name(name) for name in HEADERS}
    copies |= {RUNNER + ".cpp": Path(__file__).with_name(RUNNER + ".cpp"), **runtime_libraries.headers()}
    for name, path in copies.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(path.read_bytes())
    _build_runner(folder, target)
    (folder / "README.md").write_text(README, encoding="utf-8")
    for name in (*runtime_libraries.LIBRARIES, RUNNER):
        link.check(folder / name, target, runtime_libraries.NEEDED)


def describe(manifest: Manifest) -> str:
    """bundle.txt: the manifest for the runner, a fact a line, so that it takes no JSON reader."""
    features = " ".join(cpuinfo_name(feature) for feature in manifest.instruction_sets)
    lines = [f"architecture {manifest.architecture}", f"features {features}", f"threads {manifest.threads}"]
    lines += [f"program {program.batch} {program.function}" for program in manifest.programs]
    lines += [f"divisible {int(manifest.divisible)}"]
    lines += [_tensor("input", tensor) for tensor in manifest.inputs] + [
        _tensor("output", tensor) for tensor in manifest.outputs
    ]
    lines += [f"file {file.sha256} {name}" for name, file in sorted(manifest.files.items()) if name.endswith(".so")]
    return "\n".join(lines) + "\n"


def sources(folder: Path) -> Mapping[str, Path]:
    """Every file of a bundle's folder by its name in the manifest."""
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


def _system_libraries() -> dict[str, Path]:
    folder = Path(os.environ.get("QEMU_LD_PREFIX", "/usr/aarch64-linux-gnu")) / "lib"
    missing = [name for name in SYSTEM if not (folder / name).exists()]
    if missing:
        raise DeburrError(
            "E405", "no C library for the bundle", where="--runtime for Android", why=f"there is no {folder / missing[0]}",
            hint="apt-get install libc6-arm64-cross libstdc++6-arm64-cross",
        )  # fmt: skip
    return {name: folder / name for name in SYSTEM}


def _tensor(kind: str, tensor: Tensor) -> str:
    sizes = " ".join("-1" if size is None else str(size) for size in tensor.shape)
    return f"{kind} {tensor.numpy} {len(tensor.shape)} {sizes} {tensor.name}".replace("  ", " ")


def _build_runner(folder: Path, target: Target) -> None:
    # As for the model itself: for this machine's own kind by its own compiler, unless an older C library is asked for.
    is_like_here = target.architecture == architecture_here() and not target.glibc
    compiler = (link.find_host("c++", "g++", "clang++"),) if is_like_here else _cross_compiler(target)
    command = [*compiler, "-std=c++17", "-O2", *("-s", "-Wl,--build-id=none"), "-Iinclude", f"{RUNNER}.cpp", "-ldl"]
    done = subprocess.run([*command, "-o", RUNNER], cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise DeburrError("E403", "the runner does not compile", where=command[0], why=lines[0])
    (folder / RUNNER).chmod(0o755)


def _cross_compiler(target: Target) -> tuple[str, ...]:
    return link.cross_compiler(replace(target, glibc=RUNNER_GLIBC), cpp=True)
