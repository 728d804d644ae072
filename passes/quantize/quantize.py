"""Everything from a float model to an integer one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from deburr.ir.graph import Graph
from deburr.passes.core import Context, Pass
from deburr.passes.quantize.calibrate import Calibrate
from deburr.passes.quantize.correct_bias import CorrectBias
from deburr.passes.quantize.insert_qdq import InsertQdq
from deburr.passes.quantize.round_weights import RoundWeights
from deburr.passes.quantize.scale_weights import ScaleWeights


@dataclass(frozen=True)
class Quantize(Pass):
    """Integers as the dialect wants them, mostly of 8 bits: calibrate, scale-weights, round-weights and insert-qdq in turn.

    :param rounding: second-order is round-weights; corrected is the nearest integers and correct-bias; nearest is those alone.
    :param bits: of the weights, as in scale-weights; eight_bits, scheme, block too. The other options are those of calibrate.
    """

    name: ClassVar[str] = "quantize"
    main_graph_only: ClassVar[bool] = True
    needs_data: ClassVar[bool] = True
    minimum_opset: ClassVar[int] = InsertQdq.minimum_opset
    tolerance: ClassVar[float | None] = None

    observer: str = "mse"
    percentile: float = 99.999
    activations: Literal["auto", "u8", "s8", "u16", "s16"] = "auto"
    rounding: Literal["second-order", "corrected", "nearest"] = "second-order"
    bits: int = 8
    dialect: str = "ort"
    keep: tuple[str, ...] = ()
    eight_bits: tuple[str, ...] = ()
    scheme: Literal["symmetric", "affine"] = "symmetric"
    block: int = 0

    @property
    def notes(self) -> tuple[Pass, ...]:
        """The passes that note how values become integers, and change no number yet."""
        return (
            Calibrate(self.observer, self.percentile, self.activations, self.dialect, self.keep),
            ScaleWeights(self.dialect, self.bits, eight_bits=self.eight_bits, scheme=self.scheme, block=self.block),
        )

    def run(self, graph: Graph, context: Context) -> None:
        """:raises DeburrError: what the four passes raise."""
        steps: list[Pass] = [
            *self.notes,
            *([RoundWeights(dialect=self.dialect)] if self.rounding == "second-order" else []),
            *([CorrectBias(self.dialect)] if self.rounding == "corrected" else []),
            InsertQdq(self.dialect),
        ]
        for step in steps:
            context.before_part(step, context)
            step.run(graph, context)
