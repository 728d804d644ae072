"""Targets: the device that code is made for, as LLVM names it and as the schedules see it."""

from __future__ import annotations

import difflib
import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from deburr.ir.errors import DeburrError

LANES: Mapping[str, int] = {"avx512vnni": 16, "avx2": 8, "generic": 4}  # int32 per vector
BLOCKS: Mapping[str, int] = {"avx512vnni": 16, "avx2": 8, "generic": 8}  # channels per block of an activation
TRIPLE = "x86_64-linux-gnu"  # said outright: LLVM's own default names the machine it was built on

# What LLVM calls an instruction set and /proc/cpuinfo calls otherwise, beyond dots and underscores.
_CPUINFO_NAMES = {"sse3": "pni", "lzcnt": "abm", "bmi": "bmi1", "pclmul": "pclmulqdq", "sha": "sha_ni", "rdrnd": "rdrand"}
_INSTRUCTION_SETS = tuple(
    "sse ssse avx amx fma f16c bmi gfni vaes vpclmul aes pclmul sha popcnt movbe lzcnt adx xop tbm rdrnd rdseed sm3 sm4".split()  # noqa: SIM905
)


@dataclass(frozen=True)
class Target:
    """One device. Equal targets give equal code, bit for bit.

    :param tvm: what `tvm.target.Target` takes.
    :param isa: which schedules apply: "avx512vnni", "avx2" or "generic".
    :param lanes: int32 lanes of a vector.
    :param block: channels in a block of the layout NCHW{block}c.
    """

    name: str
    tvm: Mapping[str, Any] = field(hash=False)
    isa: str
    lanes: int
    block: int
    cores: int
    about: str = ""

    def instruction_sets(self) -> tuple[str, ...]:
        """What the CPU must offer to run the code, in LLVM's names (needs TVM: LLVM holds the table)."""
        import tvm
        from tvm.target import codegen

        features = codegen.llvm_get_cpu_features(tvm.target.Target(dict(self.tvm)))
        return tuple(sorted(str(feature) for feature in features if is_instruction_set(str(feature))))


def names() -> tuple[str, ...]:
    """Every name that `find` takes."""
    return ("host", *presets())


def find(name: str) -> Target:
    """The target called `name`: "host", or a preset.

    :raises DeburrError: E401 with the nearest names.
    """
    if name == "host":
        return host()
    found = presets().get(name)
    if found is not None:
        return found
    near = difflib.get_close_matches(name, names(), n=3, cutoff=0.5)
    raise DeburrError(
        "E401", f"no target {name!r}", why=f"the targets are {', '.join(names())}",
        hint=f"did you mean {' or '.join(near)}?" if near else "run `deburr targets`",
    )  # fmt: skip


def lanes_of(name: str) -> int:
    """The `lanes` of `find(name)`, without loading TVM.

    :raises DeburrError: E401 with the nearest names.
    """
    return LANES[isa_of(cpu_flags())] if name == "host" else find(name).lanes


@lru_cache(maxsize=1)
def presets() -> Mapping[str, Target]:
    """The targets of presets.toml by name."""
    table = _load_toml(Path(__file__).with_name("presets.toml"))
    return {name: _from_table(name, entry) for name, entry in table.items()}


@lru_cache(maxsize=1)
def host() -> Target:
    """This machine: LLVM's name for the CPU, less every instruction set that the CPU's own flags do not show.

    A virtual machine may hide units (AMX, often) that LLVM assumes from the family; code for them would die by SIGILL.

    :raises DeburrError: E401 where the machine is not x86-64.
    """
    if platform.machine() not in ("x86_64", "AMD64"):
        raise DeburrError("E401", "no target 'host'", why=f"{platform.machine()} is not supported yet", hint="name a preset")
    import tvm
    from tvm.target import codegen

    cpu = str(codegen.llvm_get_system_cpu())
    assumed = sorted(str(f) for f in codegen.llvm_get_cpu_features(tvm.target.Target({"kind": "llvm", "mcpu": cpu})))
    mattr = [f"-{feature}" for feature in missing_here(filter(is_instruction_set, assumed))]
    mattr += ["-prefer-256-bit"] if "prefer-256-bit" in assumed else []
    return _make("host", cpu, mattr, isa_of(cpu_flags()), cores=len(os.sched_getaffinity(0)), about=f"this machine ({cpu})")


def isa_of(flags: Iterable[str]) -> str:
    """The best family of schedules that a CPU with these flags can run."""
    have = set(flags)
    if {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"} <= have:
        return "avx512vnni"
    return "avx2" if {"avx2", "fma"} <= have else "generic"


def missing_here(instruction_sets: Iterable[str]) -> tuple[str, ...]:
    """Those that this machine's CPU does not show (all of them where there is no /proc/cpuinfo)."""
    shown = {flag.replace("_", "") for flag in cpu_flags()}
    return tuple(feature for feature in instruction_sets if cpuinfo_name(feature) not in shown)


@lru_cache(maxsize=1)
def cpu_flags() -> frozenset[str]:
    """The CPU's own flags, as the kernel shows them; empty where there is no /proc/cpuinfo."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == "flags":
            return frozenset(value.split())
    return frozenset()


def is_instruction_set(feature: str) -> bool:
    """Whether an LLVM feature lets new instructions in (the others only tune)."""
    return feature.startswith(_INSTRUCTION_SETS) and not feature.startswith("fast-")


def cpuinfo_name(feature: str) -> str:
    """An LLVM feature as /proc/cpuinfo spells it, without underscores."""
    return _CPUINFO_NAMES.get(feature, feature).replace(".", "").replace("-", "").replace("_", "")


def _make(name: str, mcpu: str, mattr: list[str], isa: str, *, cores: int, about: str) -> Target:
    tvm: dict[str, Any] = {"kind": "llvm", "mtriple": TRIPLE, "mcpu": mcpu, "num-cores": cores}
    if mattr:
        tvm["mattr"] = mattr
    return Target(name, tvm, isa, LANES[isa], BLOCKS[isa], cores, about)


def _from_table(name: str, entry: Mapping[str, Any]) -> Target:
    known = {"about", "mcpu", "mattr", "isa", "cores"}
    strange = sorted(set(entry) - known)
    if strange or entry.get("isa") not in LANES or not isinstance(entry.get("mcpu"), str):
        raise DeburrError("E401", f"the preset {name!r} is broken", why=f"unknown keys {strange}" if strange else "isa or mcpu")
    cores = int(entry.get("cores", 4))
    return _make(
        name, entry["mcpu"], list(entry.get("mattr", ())), entry["isa"], cores=cores, about=str(entry.get("about", ""))
    )


def _load_toml(path: Path) -> dict[str, Any]:
    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10
        import tomli as tomllib  # type: ignore[no-redef,import-not-found,unused-ignore]
    return tomllib.loads(path.read_text(encoding="utf-8"))
