"""Targets: the device that code is made for, as LLVM names it and as the schedules see it."""

from __future__ import annotations

import difflib
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from deburr.ir.errors import DeburrError
from deburr.targets import features, presets
from deburr.targets import isa as isas
from deburr.targets.isa import ISAS, TRIPLES
from deburr.targets.presets import Preset, capability


@dataclass(frozen=True)
class Target:
    """One device. Equal targets give equal code, bit for bit.

    :param tvm: what `tvm.target.Target` takes.
    :param isa: which schedules apply, a key of `ISAS`.
    :param lanes: int32 lanes of a vector.
    :param block: channels in a block of the layout NCHW{block}c.
    :param glibc: the oldest C library that a bundle is to run with; "" leaves it to the linker.
    :param gpu: the GPU's architectures ("sm_80"), one machine code for each; () for code that the CPU runs.
    """

    name: str
    tvm: Mapping[str, Any] = field(hash=False)
    isa: str
    lanes: int
    block: int
    cores: int
    about: str = ""
    glibc: str = ""
    gpu: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "gpu", tuple(self.gpu))  # JSON has lists

    @property
    def cpu(self) -> Mapping[str, Any]:
        """TVM's target of the CPU: the one that launches the kernels where they are a GPU's."""
        host: Mapping[str, Any] = self.tvm["host"] if self.gpu else self.tvm
        return host

    @property
    def triple(self) -> str:
        """LLVM's triple; this machine's where the target names none."""
        return str(self.cpu.get("mtriple") or TRIPLES.get(features.architecture_here(), ""))

    @property
    def architecture(self) -> str:
        """The CPU's family as Linux calls it: "x86_64", "aarch64"."""
        return isas.architecture_of(self.triple)

    def instruction_sets(self) -> tuple[str, ...]:
        """What the CPU must offer to run the code, in LLVM's names (needs TVM: LLVM holds the table)."""
        from deburr.targets import llvm

        return tuple(sorted(filter(features.is_instruction_set, llvm.features(self.cpu))))

    def multiplies_float16(self) -> bool:
        """Whether kernels for it multiply float16 faster than float32: on tensor cores, or where a CPU has the arithmetic."""
        if self.gpu:
            return self.isa == "tensorcore"
        from deburr.targets import llvm

        feature = ISAS[self.isa].half
        return bool(feature) and feature in llvm.features(self.cpu)


def names() -> tuple[str, ...]:
    """Every name that `find` takes.

    :raises DeburrError: E101, E401 where the user's own file of presets is broken.
    """
    return ("host", *dict.fromkeys([*presets.users(), *presets.built_in()]))


def find(name: str) -> Target:
    """The target called `name`: "host", a preset, or a file of presets (``board.toml``, ``boards.toml#name``).

    The user's own presets go before ours. What they leave to LLVM is asked, which loads TVM.

    :raises DeburrError: E401 with the nearest names, E101 for a file that cannot be read.
    """
    if name == "host":
        return host()
    path, _, entry = name.partition("#")
    if path.endswith(".toml"):
        return _from_file(Path(path), entry)
    own = presets.users()
    if name in own:
        return _make(name, own[name].completed(f"{presets.user_file()}, [{name}]"))
    if name in presets.built_in():
        return _built_in(name)
    near = difflib.get_close_matches(name, names(), n=3, cutoff=0.5)
    raise DeburrError(
        "E401", f"no target {name!r}", why="it is neither a preset nor a file of presets",
        hint=f"did you mean {' or '.join(near)}?" if near else "run `deburr targets`",
    )  # fmt: skip


def lanes_of(name: str) -> int:
    """The `lanes` of `find(name)`, without loading TVM for the host or a preset of ours.

    :raises DeburrError: E401 with the nearest names.
    """
    return ISAS[_host_isa()].lanes if name == "host" else find(name).lanes


@lru_cache(maxsize=1)
def host() -> Target:
    """This machine: LLVM's name for the CPU, less every instruction set that the CPU's own flags do not show.

    A virtual machine may hide units (AMX, often) that LLVM assumes from the family; code for them would die by SIGILL.

    :raises DeburrError: E401 where the machine is no Linux on x86-64 or aarch64.
    """
    isa = _host_isa()
    from tvm.target import codegen

    from deburr.targets import llvm

    cpu, triple = str(codegen.llvm_get_system_cpu()), TRIPLES[ISAS[isa].architecture]
    assumed = sorted(llvm.features({"kind": "llvm", "mtriple": triple, "mcpu": cpu}))
    mattr = [f"-{feature}" for feature in features.missing_here(filter(features.is_instruction_set, assumed))]
    mattr += ["-prefer-256-bit"] if "prefer-256-bit" in assumed else []
    cores = len(os.sched_getaffinity(0))
    return _make("host", Preset(mcpu=cpu, mattr=mattr, isa=isa, mtriple=triple, cores=cores, about=f"this machine ({cpu})"))


def _host_isa() -> str:
    flags = {flag.replace("_", "") for flag in features.cpu_flags()}
    needed = {need for isa in ISAS.values() for need in isa.needs if features.cpuinfo_name(need) in flags}
    best = isas.best(needed, features.architecture_here()) if platform.system() == "Linux" else None
    if best is None:
        machine = f"{platform.system()} on {platform.machine()}"
        raise DeburrError("E401", "no target 'host'", why=f"{machine} is not supported yet", hint="name a preset")
    return best


def _from_file(path: Path, entry: str) -> Target:
    found = presets.read(path)
    if not entry and len(found) == 1:
        entry = next(iter(found))
    if entry not in found:
        listed = ", ".join(found) or "none"
        raise DeburrError(
            "E401", f"no preset {entry!r}" if entry else "which preset?", where=str(path), why=f"it holds {listed}",
            hint=f"write {path}#NAME",
        )  # fmt: skip
    return _make(entry, found[entry].completed(f"{path}, [{entry}]"))


@lru_cache
def _built_in(name: str) -> Target:
    return _make(name, presets.built_in()[name])


def _make(name: str, preset: Preset) -> Target:
    assert preset.isa is not None
    isa = ISAS[preset.isa]
    tvm: dict[str, Any] = {
        "kind": "llvm",
        "mtriple": preset.mtriple or TRIPLES["x86_64" if preset.gpu else isa.architecture],
        "mcpu": preset.mcpu,
        "num-cores": preset.cores,
    }
    if preset.mattr:
        tvm["mattr"] = list(preset.mattr)
    if preset.gpu:  # code that all of them run: TVM sees the least of them
        tvm = {"kind": "cuda", "arch": min(preset.gpu, key=capability), "host": tvm}
    gpu = tuple(preset.gpu)
    return Target(name, tvm, preset.isa, isa.lanes, isa.block, preset.cores, preset.about, preset.glibc or "", gpu)
