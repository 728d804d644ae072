"""How many warps of a kernel a multiprocessor holds at a time, from what ptxas says of it: NVIDIA's occupancy calculator.

The limits are those of the CUDA C++ Programming Guide, "Compute Capabilities". How the first-level cache is divided, which a
driver decides, is taken as the most that shared memory can get.
"""

from __future__ import annotations

from dataclasses import dataclass

from deburr.targets.nvidia.compiler import Kernel

WARP = 32
REGISTERS = 64 * 1024  # of a multiprocessor
REGISTER_UNIT = 8  # of a thread: a warp gets them by 256


@dataclass(frozen=True)
class Limits:
    """Of a multiprocessor. `shared` in bytes; `reserved` are those that each block of threads costs besides its own."""

    warps: int
    blocks: int
    shared: int
    reserved: int = 0


LIMITS = {
    "sm_53": Limits(64, 32, 64 * 1024),
    "sm_61": Limits(64, 32, 96 * 1024),
    "sm_72": Limits(64, 32, 96 * 1024),
    "sm_75": Limits(32, 16, 64 * 1024),
    "sm_80": Limits(64, 32, 164 * 1024, 1024),
    "sm_86": Limits(48, 16, 100 * 1024, 1024),
    "sm_87": Limits(48, 16, 164 * 1024, 1024),
    "sm_89": Limits(48, 24, 100 * 1024, 1024),
    "sm_90": Limits(64, 32, 228 * 1024, 1024),
}


@dataclass(frozen=True)
class Occupancy:
    """Of one kernel: `share` of the warps that a multiprocessor could hold, and what allows no more of them."""

    share: float
    limit: str  # "registers" | "shared" | "blocks" | "warps"


def occupancy(kernel: Kernel, threads: int, architecture: str) -> Occupancy:
    """Of a kernel with blocks of `threads`.

    :raises KeyError: for an architecture that is not in `LIMITS`.
    """
    limits, warps = LIMITS[architecture], -(-threads // WARP)
    registers = -(-max(kernel.registers, 1) // REGISTER_UNIT) * REGISTER_UNIT * WARP * warps
    shared = kernel.shared + limits.reserved
    blocks = {
        "warps": limits.warps // warps,
        "blocks": limits.blocks,
        "registers": REGISTERS // registers,
        "shared": limits.shared // shared if shared else limits.blocks,
    }
    limit = min(blocks, key=lambda name: blocks[name])
    return Occupancy(blocks[limit] * warps / limits.warps, limit)
