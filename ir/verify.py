"""The verifier: is a model well formed, for the stage that it has reached?

Each rule is a small numbered function in `deburr.ir.rules`. The tables below say which of them hold at which level.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from deburr.ir.errors import DeburrError
from deburr.ir.model import Model
from deburr.ir.node import Node
from deburr.ir.rules.clean import CLEAN
from deburr.ir.rules.core import Rule, Scope, Violation, scopes
from deburr.ir.rules.lowered import LOWERED
from deburr.ir.rules.quantized import QUANTIZED
from deburr.ir.rules.schema import SCHEMA
from deburr.ir.rules.structure import STRUCTURE
from deburr.ir.text.names import value_name
from deburr.ir.text.printer import print_node

Table = tuple[Rule, ...]

# The tables of a level are checked in turn: each may rely on the ones before it.
LEVELS: Mapping[str, tuple[Table, ...]] = MappingProxyType(
    {
        "imported": (STRUCTURE, SCHEMA),
        "clean": (STRUCTURE, SCHEMA, CLEAN),
        "quantized": (STRUCTURE, SCHEMA, QUANTIZED),
        "lowered": (STRUCTURE, SCHEMA, LOWERED),
    }
)

LINE_LIMIT = 200  # characters of a node's line that an error shows


def verify(model: Model, level: str = "imported") -> None:
    """Check every rule of a level: "imported" (any valid model), "clean", "quantized" or "lowered".

    :raises DeburrError: E104 with the first violation, and how many more there are.
    :raises ValueError: for an unknown level.
    """
    if level not in LEVELS:
        raise ValueError(f"the levels are {', '.join(LEVELS)}")
    for table in LEVELS[level]:
        found = violations(model, table)
        if found:
            raise _error(*found[0], len(found) - 1)


def violations(model: Model, table: Sequence[Rule]) -> list[tuple[Rule, Scope, Violation]]:
    """Everything in the model that breaks a rule of the table, in the order of the rules."""
    everything = scopes(model)
    return [(rule, scope, found) for rule in table for scope in everything for found in rule.check(scope)]


def _error(rule: Rule, scope: Scope, violation: Violation, more: int) -> DeburrError:
    where = f"graph {scope.graph.name!r}"
    where += f", node {violation.node!r}" if violation.node is not None else ""
    where += f", value {value_name(violation.value.name)}" if violation.value is not None else ""
    why = violation.message + (f" [{_line(violation.node)}]" if violation.node is not None else "")
    hint = "" if not more else f"{more} more violation{'s' if more > 1 else ''}"
    return DeburrError("E104", f"{rule.number}, {rule.explanation}", where=where, why=why, hint=hint)


def _line(node: Node) -> str:
    line = print_node(node)
    return line if len(line) <= LINE_LIMIT else line[:LINE_LIMIT] + "…"
