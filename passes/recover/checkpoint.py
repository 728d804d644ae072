"""The state of a training in a file: arrays alone, never pickled objects, and written whole or not at all.

A training that was killed goes on from the file and ends with the same bits as one that was not.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from deburr.ir.errors import DeburrError
from deburr.ir.files import write_atomically
from deburr.ir.model import Model
from deburr.ir.samples import Samples, read_arrays
from deburr.ir.stored_array import rows
from deburr.ir.text import print_model
from deburr.ir.types import Array

_ROWS = 256  # of an array in memory at a time


@dataclass
class Progress:
    """Where a training is: batches done of an epoch, epochs done, and the best so far.

    :param best: the weights of the lowest loss on the samples kept apart; `best_epoch` 0 is before training.
    :param losses: on the samples kept apart: before training, and after each epoch.
    """

    epoch: int = 0
    batch: int = 0
    best: list[Array] = field(default_factory=list)
    best_epoch: int = 0
    losses: list[float] = field(default_factory=list)
    training_losses: list[float] = field(default_factory=list)  # of each batch

    @property
    def best_loss(self) -> float:
        return self.losses[self.best_epoch]


def fingerprint(text: str, models: list[Model], samples: Samples) -> str:
    """What a checkpoint must agree with: the options, the models with their weights and noted scales, and the data."""
    digest = hashlib.sha256(text.encode())
    for model in models:
        digest.update(print_model(model).encode())
    for part in samples.parts:
        for name, stored in part.items():
            digest.update(f"{name}{stored.shape}{stored.dtype}".encode())
            for some in rows(stored, _ROWS):
                digest.update(np.ascontiguousarray(some).tobytes())
    if samples.labels is not None:
        digest.update(np.ascontiguousarray(samples.labels).tobytes())
    return digest.hexdigest()


def save(path: Path, identity: str, progress: Progress, weights: list[Array], optimizer: dict[str, Array]) -> None:
    """:raises DeburrError: E109 where the file cannot be written."""
    figures = {
        "epoch": progress.epoch, "batch": progress.batch, "best_epoch": progress.best_epoch,
        "losses": progress.losses, "training_losses": progress.training_losses,
    }  # fmt: skip
    arrays = {f"weight/{index}": array for index, array in enumerate(weights)}
    arrays |= {f"best/{index}": array for index, array in enumerate(progress.best)}
    arrays |= {f"optimizer/{name}": array for name, array in optimizer.items()}
    write(path, identity, figures, arrays)


def load(path: Path, identity: str) -> tuple[Progress, list[Array], dict[str, Array]] | None:
    """Progress, weights and the optimizer's state; None where there is no file.

    :raises DeburrError: as `read`.
    """
    found = read(path, identity)
    if found is None:
        return None
    figures, arrays = found
    weights, best = ([arrays[f"{kind}/{index}"] for index in range(_count(arrays, kind))] for kind in ("weight", "best"))
    optimizer = {name.removeprefix("optimizer/"): array for name, array in arrays.items() if name.startswith("optimizer/")}
    return Progress(best=best, **figures), weights, optimizer


def write(path: Path, identity: str, figures: dict[str, Any], arrays: dict[str, Array]) -> None:
    """A state of any kind: `figures` is what JSON holds, `identity` what a later run must have in common with this one.

    :raises DeburrError: E109 where the file cannot be written.
    """
    text = np.frombuffer(json.dumps({"identity": identity, **figures}).encode(), np.uint8)

    def fill(fresh: Path) -> None:
        with fresh.open("wb") as file:
            np.savez(file, figures=text, **arrays)  # type: ignore[arg-type]

    write_atomically(path, fill)


def read(path: Path, identity: str) -> tuple[dict[str, Any], dict[str, Array]] | None:
    """Figures and arrays as they were written; None where there is no file.

    :raises DeburrError: E301 for a file that cannot be read, E203 for one of another training.
    """
    if not path.exists():
        return None
    arrays = read_arrays(path)
    figures: dict[str, Any] = json.loads(bytes(arrays.pop("figures"))) if "figures" in arrays else {}
    if figures.pop("identity", "") != identity:
        raise DeburrError(
            "E203", "the checkpoint is of another training", where=str(path), why="options, model, data or seed differ",
            hint="remove the file, or name another one",
        )  # fmt: skip
    return figures, arrays


def _count(arrays: dict[str, Array], kind: str) -> int:
    return sum(name.startswith(f"{kind}/") for name in arrays)
