"""The steps that a loop of pruning and training has done, in a file: the model that they led to, and what else the next needs.

The file is a checkpoint like that of a training. The training inside a step has one of its own beside it, which goes away with
the step.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deburr.ir.onnx_reader import read as read_model
from deburr.ir.onnx_writer import to_proto
from deburr.ir.types import Array
from deburr.passes.core import Context, Remark
from deburr.passes.prune.reference import Indices, Reference
from deburr.passes.prune.trial import PruningTrials
from deburr.passes.recover import checkpoint


@dataclass(frozen=True, slots=True)
class PrunedSteps:
    """:param identity: what a later run must have in common with this one: see `checkpoint.fingerprint`."""

    path: Path
    identity: str

    def training(self, number: int) -> Path:
        """Where the training of a step keeps its state."""
        return self.path.with_name(f"{self.path.stem}.step-{number}{self.path.suffix}")

    def save(self, number: int, trials: PruningTrials, context: Context) -> None:
        """:raises DeburrError: E109 where the file cannot be written."""
        kept = context.reference.kept if context.reference is not None else {}
        places = [(name, axis) for name, axes in kept.items() for axis in axes]
        figures = {
            "number": number, "figures": trials.figures, "kept": places,
            "remarks": [dataclasses.astuple(remark) for remark in context.remarks],
        }  # fmt: skip
        arrays: dict[str, Array] = {f"kept/{index}": kept[name][axis] for index, (name, axis) in enumerate(places)}
        arrays["model"] = np.frombuffer(to_proto(context.model).SerializeToString(deterministic=True), np.uint8)
        checkpoint.write(self.path, self.identity, figures, arrays)
        self._forget_trainings(number)

    def load(self, trials: PruningTrials, context: Context) -> int:
        """Go on with the model of the file, if there is one; how many steps it has behind it.

        :raises DeburrError: E301 for a file that cannot be read, E203 for one of another training.
        """
        import onnx

        found = checkpoint.read(self.path, self.identity)
        if found is None:
            return 0
        figures, arrays = found
        model = read_model(onnx.ModelProto.FromString(arrays["model"].tobytes()))
        model.folder = context.model.folder
        kept: dict[str, dict[int, Indices]] = {}
        for index, (name, axis) in enumerate(figures["kept"]):
            kept.setdefault(name, {})[axis] = np.asarray(arrays[f"kept/{index}"], np.int64)
        told = [Remark(*texts) for texts in figures["remarks"]]
        trials.adopt(dataclasses.replace(context, model=model, reference=Reference(trials.reference, kept)), told)
        trials.figures = figures["figures"]
        self._forget_trainings(figures["number"])
        return int(figures["number"])

    def _forget_trainings(self, number: int) -> None:
        """Those of the steps that are done, which a process that died may have left."""
        for one in range(1, number + 1):
            self.training(one).unlink(missing_ok=True)
