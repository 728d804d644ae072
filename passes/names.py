"""Layers chosen by name: what `keep=(stem*,head)` means to every pass that has it."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterable

from deburr.ir.errors import DeburrError
from deburr.ir.node import Node
from deburr.ir.value import Value


def matching(
    nodes: Iterable[Node], values: Iterable[Value], patterns: tuple[str, ...], where: str, option: str = "keep"
) -> list[tuple[set[Node], set[Value]]]:
    """For each pattern, the nodes and values that it names.

    :param patterns: as `fnmatch` reads them; case counts.
    :raises DeburrError: E203 for a pattern that matches nothing, with the nearest names.
    """
    nodes, values = list(nodes), [value for value in values if value.name]
    found = []
    for pattern in patterns:
        chosen = {node for node in nodes if fnmatch.fnmatchcase(node.name, pattern)}
        held = {value for value in values if fnmatch.fnmatchcase(value.name, pattern)}
        if not chosen and not held:
            names = [*(node.name for node in nodes), *(value.name for value in values)]
            raise _no_match(pattern, [name for name in dict.fromkeys(names) if name], where, option)
        found.append((chosen, held))
    return found


def _no_match(pattern: str, names: list[str], where: str, option: str) -> DeburrError:
    near = difflib.get_close_matches(pattern, names, n=3, cutoff=0.4)
    return DeburrError(
        "E203", f"{option}: nothing is called {pattern!r}", where=where, why="no node and no value of the graph matches",
        hint=f"did you mean {' or '.join(map(repr, near))}?" if near else "`deburr inspect MODEL --text` lists the names",
    )  # fmt: skip
