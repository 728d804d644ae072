"""Families of schedules: what each needs of a CPU, and how its vectors are cut."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Isa:
    """One family of schedules.

    :param lanes: int32 per vector.
    :param block: channels per block of an activation, NCHW{block}c.
    :param needs: LLVM's features that its instructions want.
    """

    architecture: str
    lanes: int
    block: int
    needs: tuple[str, ...] = ()


# The best one first, for each architecture. On aarch64 a block of 16 channels is one register of activations.
ISAS: Mapping[str, Isa] = {
    "avx512vnni": Isa("x86_64", 16, 16, ("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vnni")),
    "avxvnni": Isa("x86_64", 8, 8, ("avx2", "fma", "avxvnni")),
    "avx2": Isa("x86_64", 8, 8, ("avx2", "fma")),
    "generic": Isa("x86_64", 4, 8),
    "i8mm": Isa("aarch64", 4, 16, ("neon", "dotprod", "i8mm")),
    "dotprod": Isa("aarch64", 4, 16, ("neon", "dotprod")),
    "neon": Isa("aarch64", 4, 16, ("neon",)),
}

TRIPLES: Mapping[str, str] = {"x86_64": "x86_64-linux-gnu", "aarch64": "aarch64-linux-gnu"}


def best(features: Iterable[str], architecture: str) -> str | None:
    """The first family that a CPU with these LLVM features can run; None where there is none for the architecture."""
    have = set(features)
    return next((name for name, isa in ISAS.items() if isa.architecture == architecture and have.issuperset(isa.needs)), None)


def architecture_of(triple: str) -> str:
    """The first part of an LLVM triple, as Linux calls it."""
    first = triple.partition("-")[0]
    return {"arm64": "aarch64", "amd64": "x86_64"}.get(first, first)
