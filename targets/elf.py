"""What a shared library says about itself: its architecture, what it needs, how new a C library it wants (pyelftools)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deburr.ir.errors import DeburrError

_MACHINES = {"EM_AARCH64": "aarch64", "EM_X86_64": "x86_64", "EM_ARM": "arm", "EM_386": "i386", "EM_RISCV": "riscv64"}


@dataclass(frozen=True, slots=True)
class Elf:
    """The facts.

    :param needed: names of the libraries that are loaded with it.
    :param glibc: the newest version of the GNU C library among its symbols, as "2.28"; "" where it takes none.
    """

    architecture: str
    needed: tuple[str, ...]
    glibc: str

    @classmethod
    def read(cls, path: Path) -> Elf:
        """Read a library's header and dynamic section.

        :raises DeburrError: E406 where it is no ELF file.
        """
        from elftools.common.exceptions import ELFError
        from elftools.elf.elffile import ELFFile

        try:
            with path.open("rb") as file:
                elf = ELFFile(file)
                return cls(_MACHINES.get(elf["e_machine"], str(elf["e_machine"])), _needed(elf), _glibc(elf))
        except (ELFError, OSError) as error:
            raise DeburrError("E406", "not a library", where=str(path), why=str(error), hint="compile it again") from error


def version(text: str) -> tuple[int, ...]:
    """ "2.28" as numbers, to compare."""
    return tuple(int(part) for part in text.split("."))


def _needed(elf: Any) -> tuple[str, ...]:
    dynamic = elf.get_section_by_name(".dynamic")
    return () if dynamic is None else tuple(str(tag.needed) for tag in dynamic.iter_tags("DT_NEEDED"))


def _glibc(elf: Any) -> str:
    section = elf.get_section_by_name(".gnu.version_r")
    names = [] if section is None else [str(one.name) for _, needed in section.iter_versions() for one in needed]
    found = [name.removeprefix("GLIBC_") for name in names if name.startswith("GLIBC_2.")]
    return max(found, key=version, default="")
