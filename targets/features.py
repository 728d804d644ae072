"""Instruction sets under their two names: LLVM's, and the kernel's in /proc/cpuinfo."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from deburr.targets.isa import architecture_of

# What LLVM calls an instruction set and /proc/cpuinfo calls otherwise, beyond dots and underscores.
_X86_NAMES = {"sse3": "pni", "lzcnt": "abm", "bmi": "bmi1", "pclmul": "pclmulqdq", "sha": "sha_ni"}
_ARM_NAMES = {
    "fp-armv8": "fp", "neon": "asimd", "crc": "crc32", "lse": "atomics", "rdm": "asimdrdm", "rcpc": "lrcpc",
    "rcpc-immo": "ilrcpc", "fullfp16": "asimdhp", "fp16fml": "asimdfhm", "dotprod": "asimddp", "complxnum": "fcma",
    "jsconv": "jscvt", "fptoint": "frint",
}  # fmt: skip
_CPUINFO_NAMES = {**_X86_NAMES, **_ARM_NAMES}
# Not rdrnd and rdseed, which virtual machines like to hide: no compiler makes random numbers of its own accord.
_X86_PREFIXES = tuple(
    "sse ssse avx amx fma f16c bmi gfni vaes vpclmul aes pclmul sha popcnt movbe lzcnt adx xop tbm sm3 sm4".split()  # noqa: SIM905
)
# aarch64: what a compiler may use in code like ours. What an operating system alone sees (el3, vh, mpam) is not in it, nor are
# promises about timing and unaligned atomics (dit, lse2): such code has neither.
_ARM_SETS = frozenset({*_ARM_NAMES, "aes", "sha2", "sha3", "sm4", "i8mm", "bf16", "sve", "sve2", "flagm"})


def is_instruction_set(feature: str) -> bool:
    """Whether an LLVM feature lets new instructions in (the others only tune, or concern the operating system)."""
    return feature in _ARM_SETS or (feature.startswith(_X86_PREFIXES) and not feature.startswith("fast-"))


def cpuinfo_name(feature: str) -> str:
    """An LLVM feature as /proc/cpuinfo spells it, without underscores."""
    return _CPUINFO_NAMES.get(feature, feature).replace(".", "").replace("-", "").replace("_", "")


def missing_here(instruction_sets: Iterable[str]) -> tuple[str, ...]:
    """Those that this machine's CPU does not show (all of them where there is no /proc/cpuinfo)."""
    return missing(instruction_sets, cpu_flags())


def missing(instruction_sets: Iterable[str], flags: Iterable[str]) -> tuple[str, ...]:
    """Those that a CPU with these flags does not show."""
    shown = {flag.replace("_", "") for flag in flags}
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
        if key.strip() in ("flags", "Features"):  # x86, aarch64
            return frozenset(value.split())
    return frozenset()


def architecture_here() -> str:
    """This machine's architecture, as Linux calls it."""
    return architecture_of(platform.machine().lower())
