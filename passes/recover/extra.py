"""torch is the optional extra `deburr[train]`: what needs it says so in one line."""

from __future__ import annotations

import importlib.util

from deburr.ir.errors import DeburrError


def require_torch(where: str) -> None:
    """:raises DeburrError: E902 where torch is not installed."""
    if importlib.util.find_spec("torch") is None:
        raise DeburrError(
            "E902", "torch is missing", where=where, why="it computes the gradients", hint="pip install 'deburr[train]'"
        )
