"""What the programs that make figures share: a Markdown table, a JSON file, a missing package said in one line."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any


def table(columns: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table: a column for each key of `columns`, in the format given there ("" for text); None is a dash."""
    lines = ["| " + " | ".join(columns) + " |", "| " + " | ".join("--:" if form else ":--" for form in columns.values()) + " |"]
    for row in rows:
        cells = ("-" if row.get(key) is None else format(row[key], form) for key, form in columns.items())
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write_json(path: Path, document: object) -> None:
    """Write through a temporary file, so that an interrupted run leaves what was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(document, indent=2) + "\n")
    part.replace(path)


def require(name: str, install: str) -> ModuleType:
    """The module `name`; what to install, in one line and with exit code 1, where it is missing."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise SystemExit(f"{error.name} is not installed: {install}") from None
