"""Everything from a float model to an integer one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from deburr.ir.graph import Graph
from deburr.passes.core import Context, Pass
from deburr.passes.quantize.calibrate import Calibrate
from deburr.passes.quantize.correct_bias import CorrectBias
from deburr.passes.quantize.insert_qdq import InsertQdq
from deburr.passes.quantize.scale_weights import ScaleWeights


@dataclass(frozen=True)
class Quantize(Pass):
    """Activations u8, weights s8 per channel, biases int32: calibrate, scale-weights, correct-bias and insert-qdq in turn.

    :param correct_bias: False leaves correct-bias out. The other options are those of calibrate.
    """

    name: ClassVar[str] = "quantize"
    main_graph_only: ClassVar[bool] = True
    needs_data: ClassVar[bool] = True
    minimum_opset: ClassVar[int] = InsertQdq.minimum_opset
    tolerance: ClassVar[float | None] = None

    observer: str = "mse"
    percentile: float = 99.999
    activations: Literal["u8", "s8"] = "u8"
    correct_bias: bool = True
    dialect: str = "ort"

    def run(self, graph: Graph, context: Context) -> None:
        """:raises DeburrError: what the four passes raise."""
        steps: list[Pass] = [
            Calibrate(self.observer, self.percentile, self.activations, self.dialect),
            ScaleWeights(self.dialect),
            *([CorrectBias(self.dialect)] if self.correct_bias else []),
            InsertQdq(self.dialect),
        ]
        for step in steps:
            step.run(graph, context)
