"""How good a changed model still is, measured on samples that nothing was fitted to, and the floor under it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deburr.ir.errors import DeburrError
from deburr.ir.evaluate import capture
from deburr.ir.fidelity import accuracy, sqnr_db
from deburr.ir.model import Model
from deburr.ir.samples import Samples
from deburr.ir.types import Array

_BATCH = 50


@dataclass(frozen=True, slots=True)
class Quality:
    """`loss`: the share of samples that the reference gets right, less that of the model; None where it cannot be counted.
    `sqnr_db`: of the worst float output against the reference's; None where no output is float."""

    loss: float | None
    sqnr_db: float | None

    def __str__(self) -> str:
        figures = [
            *([f"{100 * self.loss:+.2f} points of accuracy lost"] if self.loss is not None else []),
            *([f"SQNR {self.sqnr_db:.1f} dB"] if self.sqnr_db is not None else []),
        ]
        return ", ".join(figures) or "quality unknown"


@dataclass(frozen=True, slots=True)
class Floor:
    """At most `max_loss` of top-1 accuracy (0.01 is a point) may go, or at least `min_sqnr` dB must stay; None asks nothing."""

    max_loss: float | None = None
    min_sqnr: float | None = None

    @classmethod
    def of(cls, max_loss: float | None, min_sqnr: float | None, data: Samples, where: str) -> Floor:
        """What can be asked with this data: `max_loss` if it has labels, else `min_sqnr`.

        :raises DeburrError: E206 if only `max_loss` is given and there are no labels.
        """
        if max_loss is not None and data.labels is not None:
            return cls(max_loss=max_loss)
        if max_loss is not None and min_sqnr is None:
            raise DeburrError(
                "E206", "max_loss needs labels to measure accuracy with", where=where, why=f"{data.source} has none",
                hint="add an array `labels` [samples] to the data, or give min_sqnr in place of max_loss",
            )  # fmt: skip
        return cls(min_sqnr=min_sqnr)

    def holds(self, quality: Quality) -> bool:
        """What cannot be measured, and NaN, holds no floor."""
        if self.max_loss is not None:
            return quality.loss is not None and quality.loss <= self.max_loss
        return self.min_sqnr is None or (quality.sqnr_db is not None and quality.sqnr_db >= self.min_sqnr)

    def __str__(self) -> str:
        if self.max_loss is not None:
            return f"at most {100 * self.max_loss:g} points of accuracy lost"
        return "none" if self.min_sqnr is None else f"SQNR of at least {self.min_sqnr:g} dB"


def measure(model: Model, reference: Model, data: Samples) -> Quality:
    """Run both over `data` in ONNX Runtime without optimizations; memory holds a batch of outputs.

    Accuracy is counted where the only output of two dimensions [samples, classes] meets labels [samples].
    """
    names = list(dict.fromkeys(value.name for value in model.graph.outputs))
    powers: dict[str, Array] = {name: np.zeros(2) for name in names}  # of the signal, and of the error
    right, start = np.zeros(2), 0
    counts = data.labels is not None
    pairs = zip(capture(reference, names, data, _BATCH), capture(model, names, data, _BATCH), strict=True)
    for wanted, got in pairs:
        floats = [name for name in names if np.issubdtype(wanted[name].dtype, np.floating)]
        powers = {name: np.add(powers[name], _powers(wanted[name], got[name])) for name in floats}
        scores = [name for name in names if wanted[name].ndim == 2 and wanted[name].shape[1] > 1]
        counts = counts and len(scores) == 1
        if counts and data.labels is not None:
            count = len(wanted[scores[0]])
            found = [accuracy(one[scores[0]], data.labels[start : start + count]) for one in (wanted, got)]
            counts, start = None not in found, start + count
            right += [count * (share or 0) for share in found]
    ratios = [sqnr_db(np.sqrt(signal), np.sqrt(noise)) for signal, noise in powers.values()]
    loss = float(right[0] - right[1]) / len(data) if counts else None
    return Quality(loss, min(ratios) if ratios else None)


def _powers(wanted: Array, got: Array) -> Array:
    signal, error = wanted.astype(np.float64), got.astype(np.float64) - wanted.astype(np.float64)
    return np.array([np.square(signal).sum(), np.square(error).sum()])
