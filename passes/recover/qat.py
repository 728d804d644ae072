"""Quantization-aware training: weights and scales are trained with the rounding in the loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from deburr.ir.graph import Graph
from deburr.passes.core import Context
from deburr.passes.quantize.dialects import find_dialect
from deburr.passes.quantize.placement import is_quantized
from deburr.passes.recover.training import TrainingPass, keep_zeros, require_training


@dataclass(frozen=True)
class Qat(TrainingPass):
    """Train weights, biases and scales of a model that rounds as the quantized one will, on what the original gives.

    Stands between what notes scales (`calibrate`, `scale-weights`, maybe `round-weights`), whose integers and types it starts
    from, and `insert-qdq`, whose dialect it must share. Weights keep a scale for each output channel; gradients pass straight
    through the rounding, and scales learn with them (LSQ). Afterwards the weights lie on their grid, so that
    the emitted model computes what was trained. The other options are those of `finetune`.
    """

    name: ClassVar[str] = "qat"

    epochs: int = 5
    lr: float = 0.0002
    dialect: str = "ort"

    def run(self, graph: Graph, context: Context) -> None:
        """:raises DeburrError: as `finetune`; E203 for an unknown dialect."""
        self._check()
        dialect = find_dialect(self.dialect)
        require_training(self, context)
        if is_quantized(graph):
            context.remark(graph.name, "the model is quantized already", "train before insert-qdq")
            return
        module = self._module(graph, context)
        if module is None:
            return
        from deburr.passes.recover.learning.rounding import round_as

        rounding = round_as(module, dialect)
        if rounding is None:
            context.remark(f"graph {graph.name!r}", "no weights are to be rounded", "run calibrate and scale-weights first")
            return
        trainer = self._trainer(module, context)
        keep_zeros(trainer)
        self._train(trainer, graph, context, lambda: rounding.note(graph))
