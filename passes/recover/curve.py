"""The picture of a training: the losses of its batches, and those on the samples kept apart. matplotlib is the extra `plot`."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deburr.ir.errors import DeburrError

_KINDS = ("png", "svg", "pdf")
_POINTS = 200  # of the curve of the batches: more of them are averaged


def require_matplotlib(path: Path, where: str) -> None:
    """:raises DeburrError: E902 without matplotlib, E203 for another kind of picture: now, not after the training."""
    if importlib.util.find_spec("matplotlib") is None:
        hint = "pip install 'deburr[plot]'"
        raise DeburrError("E902", "matplotlib is missing", where=where, why="it draws the curve", hint=hint)
    if path.suffix.lower().lstrip(".") not in _KINDS:
        raise DeburrError("E203", "no such kind of picture", where=str(path), hint="end its name in .png, .svg or .pdf")


def draw(batches: Sequence[float], epochs: Sequence[float], path: Path) -> None:
    """Write the picture.

    :param batches: the loss of each batch that was trained on.
    :param epochs: the loss on the samples kept apart, before training and after each epoch.
    :raises DeburrError: E109 where it cannot be written.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    from deburr.ir.files import write_atomically

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    pieces = np.array_split(np.asarray(batches, np.float64), min(len(batches), _POINTS)) if batches else []
    done = max(len(epochs) - 1, 1)
    places = (np.arange(len(pieces)) + 0.5) / max(len(pieces), 1) * done
    axes.plot(places, [piece.mean() for piece in pieces], color="#7090c0", linewidth=1, label="batches")
    axes.plot(range(len(epochs)), epochs, color="#c05030", marker="o", label="samples kept apart")
    if min((*epochs, *batches)) > 0:
        axes.set_yscale("log")
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss")
    axes.legend(frameon=False)
    kind = path.suffix.lower().lstrip(".")
    metadata = {"Date": None} if kind == "svg" else {"CreationDate": None} if kind == "pdf" else {}
    with rc_context({"svg.hashsalt": "deburr"}):
        write_atomically(path, lambda fresh: figure.savefig(fresh, format=kind, metadata=metadata))
