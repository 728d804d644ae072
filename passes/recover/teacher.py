"""What the model gave before it was changed: the aim of distillation, without labels."""

from __future__ import annotations

import copy

import numpy as np

from deburr.ir.evaluate import Evaluator
from deburr.ir.model import Model
from deburr.ir.types import Array
from deburr.passes.recover.batches import Batch

_MEMORY = 2**30  # bytes of outputs that are kept


class Teacher:
    """A model in ONNX Runtime. Outputs for samples as they are in the data are kept, as far as memory allows."""

    def __init__(self, model: Model, names: list[str]) -> None:
        self._names, self._evaluator = names, Evaluator(model, optimize=True)
        self._kept: dict[int, dict[str, Array]] = {}
        self._room = _MEMORY

    def twin(self) -> Teacher:
        """The same model for other data, whose rows have numbers of their own."""
        made = copy.copy(self)
        made._kept = {}
        return made

    def outputs(self, batch: Batch, *, keep: bool) -> dict[str, Array]:
        """The outputs for a batch, by name.

        :param keep: the inputs are those of the data, and will come again.
        """
        if keep and all(int(row) in self._kept for row in batch.rows):
            found = [self._kept[int(row)] for row in batch.rows]
            return {name: np.stack([one[name] for one in found]) for name in self._names}
        results = self._evaluator.run(batch.inputs)
        wanted = {name: results[name] for name in self._names}
        size = sum(array.nbytes for array in wanted.values())
        per_sample = all(array.ndim and len(array) == len(batch.rows) for array in wanted.values())
        if keep and per_sample and size <= self._room:
            self._room -= size
            for index, row in enumerate(batch.rows):
                self._kept[int(row)] = {name: array[index].copy() for name, array in wanted.items()}
        return wanted
