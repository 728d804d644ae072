"""Samples in the order that training takes them: shuffled anew in every epoch, the same for the same seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from deburr.ir.errors import DeburrError
from deburr.ir.samples import Samples
from deburr.ir.types import Array

Order = list[tuple[int, npt.NDArray[np.int64]]]  # (part, rows within it) for each batch
# Of a batch: arrays by input name, and its labels as `labels`. Labels that it mixes have a share for each class on axis 1.
Augment = Callable[[dict[str, Array], np.random.Generator], dict[str, Array]]


@dataclass(frozen=True)
class Batch:
    """`inputs[name]` is [samples, …] by the model's input names, `labels` [samples, …] or None; `rows` are the numbers of the
    samples in the whole set."""

    inputs: dict[str, Array]
    labels: Array | None
    rows: npt.NDArray[np.int64]

    def augmented(self, augment: Augment, random: np.random.Generator) -> Batch:
        """:raises DeburrError: E203 where the function leaves out an input."""
        labels = {} if self.labels is None or "labels" in self.inputs else {"labels": self.labels}
        changed = augment({**self.inputs, **labels}, random)
        missing = [name for name in self.inputs if name not in changed]
        if missing:
            raise DeburrError("E203", "the augmentation leaves out an input", where=f"input {missing[0]!r}")
        inputs = {name: np.asarray(changed[name], array.dtype) for name, array in self.inputs.items()}
        return Batch(inputs, changed.get("labels", self.labels) if labels else self.labels, self.rows)


@dataclass
class Batches:
    """All of `samples`, in memory, as batches of `size`; those of one batch are equal in their sizes.

    :param whole: leave out the samples that fill no batch, for models whose batch is fixed.
    """

    samples: Samples
    size: int
    whole: bool = False
    _parts: list[tuple[int, dict[str, Array]]] = field(init=False)

    def __post_init__(self) -> None:
        self._parts, start = [], 0
        for part in self.samples.parts:
            arrays = {name: np.asarray(array) for name, array in part.items()}
            self._parts.append((start, arrays))
            start += min(map(len, arrays.values()))
        if not self._pieces(None):
            raise DeburrError(
                "E305", "too few samples to train on", where=self.samples.source,
                why=f"there are {len(self.samples)}, and the model takes {self.size} at a time",
            )  # fmt: skip

    def __len__(self) -> int:
        return len(self._pieces(None))

    def shuffled(self, random: np.random.Generator) -> Order:
        """An epoch."""
        pieces = self._pieces(random)
        return [pieces[index] for index in random.permutation(len(pieces))]

    def in_order(self) -> Iterator[Batch]:
        for part, rows in self._pieces(None):
            yield self.take(part, rows)

    def take(self, part: int, rows: npt.NDArray[np.int64]) -> Batch:
        start, arrays = self._parts[part]
        labels = self.samples.labels
        numbers = rows + start
        return Batch(
            {name: array[rows] for name, array in arrays.items()}, None if labels is None else labels[numbers], numbers
        )

    def _pieces(self, random: np.random.Generator | None) -> Order:
        pieces = []
        for number, (_, arrays) in enumerate(self._parts):
            count = min(map(len, arrays.values()))
            rows = np.arange(count) if random is None else random.permutation(count)
            starts = range(0, count - self.size + 1 if self.whole else count, self.size)
            pieces += [(number, rows[start : start + self.size]) for start in starts]
        return pieces


def find_augmentation(reference: str, where: str) -> Augment | None:
    """The function that ``module:function`` names; None for an empty text.

    :raises DeburrError: E203 where it cannot be imported or called.
    """
    import importlib

    if not reference:
        return None
    module, _, attribute = reference.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        hint = "augment=module:function names a function of (arrays by input name, numpy Generator) that can be imported"
        raise DeburrError("E203", f"no function {reference!r}", where=where, why=str(error), hint=hint) from error
    if not callable(found):
        raise DeburrError("E203", f"{reference!r} is no function", where=where)
    made: Augment = found
    return made
