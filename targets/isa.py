"""Families of schedules: what each needs of a CPU, and how its vectors are cut."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Isa:
    """One family of schedules.

    :param architecture: of the CPU, as Linux calls it; GPU for those of GPUs.
    :param lanes: int32 per vector; of a GPU, per warp.
    :param block: channels per block of an activation, NCHW{block}c.
    :param needs: LLVM's features that its instructions want.
    :param capability: the GPU's compute capability that has them, as 75.
    :param half: LLVM's feature of the CPUs that multiply float16 as such; "" where the family has no use for it.
    """

    architecture: str
    lanes: int
    block: int
    needs: tuple[str, ...] = ()
    capability: int = 0
    half: str = ""


GPU = "nvidia"

# The best one first, for each architecture. On aarch64 a block of 16 channels is one register of activations.
ISAS: Mapping[str, Isa] = {
    "avx512vnni": Isa("x86_64", 16, 16, ("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vnni")),
    "avxvnni": Isa("x86_64", 8, 8, ("avx2", "fma", "avxvnni")),
    "avx2": Isa("x86_64", 8, 8, ("avx2", "fma")),
    "generic": Isa("x86_64", 4, 8),
    "i8mm": Isa("aarch64", 4, 16, ("neon", "dotprod", "i8mm"), half="fullfp16"),
    "dotprod": Isa("aarch64", 4, 16, ("neon", "dotprod"), half="fullfp16"),
    "neon": Isa("aarch64", 4, 16, ("neon",), half="fullfp16"),
    # 32 channels are two steps of a tensor core's sum and two vectors of 16 bytes, the longest that a thread loads: neighbours
    # of a warp read one piece of memory. NHWC is the case of one block, and would save nothing but the padding of the last one.
    "tensorcore": Isa(GPU, 32, 32, capability=72),
    "dp4a": Isa(GPU, 32, 32, capability=61),
    "cuda": Isa(GPU, 32, 32, capability=50),  # no instruction for four bytes: one product after the other
}

TRIPLES: Mapping[str, str] = {"x86_64": "x86_64-linux-gnu", "aarch64": "aarch64-linux-gnu"}


def best(features: Iterable[str], architecture: str) -> str | None:
    """The first family that a CPU with these LLVM features can run; None where there is none for the architecture."""
    have = set(features)
    return next((name for name, isa in ISAS.items() if isa.architecture == architecture and have.issuperset(isa.needs)), None)


def best_of_gpus(capabilities: Iterable[int]) -> str | None:
    """The first family that GPUs of all these compute capabilities can run."""
    lowest = min(capabilities)
    return next((name for name, isa in ISAS.items() if isa.architecture == GPU and isa.capability <= lowest), None)


def is_gpu(isa: str) -> bool:
    """Whether a family of schedules is for GPUs."""
    return ISAS[isa].architecture == GPU


def architecture_of(triple: str) -> str:
    """The first part of an LLVM triple, as Linux calls it."""
    first = triple.partition("-")[0]
    return {"arm64": "aarch64", "amd64": "x86_64"}.get(first, first)
