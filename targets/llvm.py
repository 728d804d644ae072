"""What LLVM knows of CPUs: their names, their features, and what is near to a name that it does not know."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from deburr.ir.errors import DeburrError
from deburr.targets.isa import TRIPLES


def features(tvm_target: Mapping[str, Any]) -> frozenset[str]:
    """Every feature of a target, the CPU's own with those of `mattr` added and taken away."""
    import tvm
    from tvm.target import codegen

    return frozenset(map(str, codegen.llvm_get_cpu_features(tvm.target.Target(dict(tvm_target)))))


@lru_cache
def cpus(triple: str) -> tuple[str, ...]:
    """The CPUs of an architecture, less a few second names that LLVM takes as well."""
    import tvm
    from tvm.target import codegen

    generic = tvm.target.Target({"kind": "llvm", "mtriple": triple})
    return tuple(sorted(map(str, codegen.llvm_get_cpu_archlist(generic))))


@lru_cache
def all_features(triple: str) -> frozenset[str]:
    """Every feature that some CPU of the architecture has."""
    found = (features({"kind": "llvm", "mtriple": triple, "mcpu": cpu}) for cpu in cpus(triple))
    return frozenset().union(*found)


def architecture_with(cpu: str) -> str | None:
    """The architecture that has a CPU of this name."""
    return next((name for name, triple in TRIPLES.items() if is_cpu(cpu, triple)), None)


def is_cpu(cpu: str, triple: str) -> bool:
    """Whether LLVM knows the CPU, by a second name too."""
    from tvm.target import codegen

    return bool(codegen.llvm_is_valid_cpu(cpu, triple))


def check(triple: str, cpu: str, mattr: Iterable[str], where: str) -> None:
    """Refuse what LLVM would drop with a warning.

    :raises DeburrError: E401 with the nearest names.
    """
    if not is_cpu(cpu, triple):
        raise unknown_cpu(cpu, cpus(triple), where)
    for entry in mattr:
        known = all_features(triple)
        if entry[:1] not in ("+", "-") or entry[1:] not in known:
            raise DeburrError(
                "E401", f"no CPU feature {entry!r}", where=where, why="LLVM does not know it" if entry[:1] in ("+", "-") else
                "it starts with neither + nor -", hint=_nearest(entry.lstrip("+-"), sorted(known), "write +NAME or -NAME"),
            )  # fmt: skip


def unknown_cpu(cpu: str, known: Sequence[str], where: str) -> DeburrError:
    """The error for a CPU that LLVM does not know."""
    return DeburrError(
        "E401", f"no CPU {cpu!r}", where=where, why="LLVM does not know it", hint=_nearest(cpu, known, "see `llc -mcpu=help`")
    )


def _nearest(name: str, known: Sequence[str], otherwise: str) -> str:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else otherwise
