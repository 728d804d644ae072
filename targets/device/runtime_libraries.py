"""TVM's runtime for a device, out of the official wheels: two libraries, those installed here or others in the user's cache."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from deburr.ir.errors import DeburrError
from deburr.targets.features import architecture_here

if TYPE_CHECKING:
    from deburr.targets.target import Target

PACKAGES = {"apache-tvm": "tvm/lib/libtvm_runtime.so", "apache-tvm-ffi": "tvm_ffi/lib/libtvm_ffi.so"}  # wheel -> its library
LIBRARIES = tuple(Path(name).name for name in PACKAGES.values())
# What they load on the device: its C and C++ libraries.
NEEDED = frozenset(
    ["libtvm_ffi.so", "libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "libstdc++.so.6", "libgcc_s.so.1"]
) | {"ld-linux-aarch64.so.1", "ld-linux-x86-64.so.2"}
PLATFORM = "manylinux_2_28"  # what pip calls it; the libraries themselves ask for glibc 2.27


def find(target: Target) -> list[Path]:
    """The libraries for a Linux target, for another architecture downloaded on first use.

    :raises DeburrError: E405 where they cannot be had.
    """
    if target.architecture == architecture_here():
        return [_installed(Path(name)) for name in PACKAGES.values()]
    versions = {package: version(package) for package in PACKAGES}
    folder = _cache() / "-".join([target.architecture, *versions.values()])
    if not all((folder / name).exists() for name in LIBRARIES):
        _download(folder, target.architecture, versions)
    return [folder / name for name in LIBRARIES]


def headers() -> dict[str, Path]:
    """The two headers of TVM's C interface that an application includes, by their place in the bundle."""
    include = Path("tvm_ffi/include")
    return {f"include/{name}": _installed(include / name) for name in ("tvm/ffi/c_api.h", "dlpack/dlpack.h")}


def _installed(path: Path) -> Path:
    """A file of an installed package: its name goes first."""
    found = importlib.util.find_spec(path.parts[0])
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent.joinpath(*path.parts[1:])


def _cache() -> Path:
    import platformdirs

    return platformdirs.user_cache_path("deburr") / "runtime"


def _download(folder: Path, architecture: str, versions: dict[str, str]) -> None:
    """The libraries into `folder`, which appears whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="deburr-runtime-", dir=folder.parent) as name:
        fresh = Path(name)
        wanted = [f"{package}=={number}" for package, number in versions.items()]
        command = [
            sys.executable, "-m", "pip", "download", "--quiet", "--platform", f"{PLATFORM}_{architecture}",
            "--only-binary=:all:", "--no-deps", "--dest", str(fresh), *wanted,
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        wheels = sorted(fresh.glob("*.whl"))
        if done.returncode or len(wheels) != len(wanted):
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            raise DeburrError(
                "E405", f"no runtime for {architecture}", where=", ".join(wanted),
                why=errors[-1] if errors else f"pip ended with status {done.returncode}",
                hint="the network is needed once; --no-runtime leaves the runtime out of the bundle",
            )  # fmt: skip
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                for path in set(PACKAGES.values()) & set(archive.namelist()):
                    (fresh / Path(path).name).write_bytes(archive.read(path))
            wheel.unlink()
        shutil.copytree(fresh, folder, dirs_exist_ok=True)
