"""deburr makes trained ONNX models smaller and faster: load, optimize, save, compile, open, run.

Nothing heavy is imported until it is used: `import deburr` costs a few milliseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deburr.api import compile, load, open, optimize, run, save  # noqa: A004 - that is what the field calls them
    from deburr.ir.errors import DeburrError

__version__ = "0.1.0"
__all__ = ["DeburrError", "__version__", "compile", "load", "open", "optimize", "run", "save"]


def __getattr__(name: str) -> Any:
    if name == "DeburrError":
        from deburr.ir.errors import DeburrError

        return DeburrError
    if name in __all__:
        from deburr import api

        return getattr(api, name)
    raise AttributeError(f"module 'deburr' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
