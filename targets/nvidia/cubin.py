"""What machine code for NVIDIA GPUs says about itself: ELF files of a machine of their own, their architecture in the flags."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from deburr.ir.errors import DeburrError

MACHINE = 190  # EM_CUDA
_MAGIC = b"\x7fELF\x02\x01"  # 64 bits, little endian
_HEADER = 64
_NEW_ABI = 8  # since CUDA 13 the flags have the architecture in their second byte


def architecture(content: bytes) -> str | None:
    """ "sm_80"; None where it is no cubin."""
    if len(content) < _HEADER or not content.startswith(_MAGIC):
        return None
    machine, flags = struct.unpack_from("<H", content, 18)[0], struct.unpack_from("<I", content, 48)[0]
    if machine != MACHINE:
        return None
    return f"sm_{flags >> 8 & 0xFF if content[8] >= _NEW_ABI else flags & 0xFF}"


def contained(library: Path) -> tuple[str, ...]:
    """The architectures of the cubins that a library holds, in ascending order."""
    content = library.read_bytes()
    found = {architecture(content[start : start + _HEADER]) for start in _starts(content)}
    return tuple(sorted(one for one in found if one is not None))


def check(library: Path, wanted: tuple[str, ...]) -> None:
    """Whether a library has machine code for these architectures, and for no others.

    :raises DeburrError: E406.
    """
    found = contained(library)
    if set(found) != set(wanted):
        raise DeburrError(
            "E406", "the kernels do not fit the device", where=library.name,
            why=f"they are for {', '.join(found) or 'none'}, the target names {', '.join(wanted)}", hint="compile it again",
        )  # fmt: skip


def _starts(content: bytes) -> Iterator[int]:
    start = content.find(_MAGIC)
    while start >= 0:
        yield start
        start = content.find(_MAGIC, start + 1)
