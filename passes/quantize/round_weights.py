"""Round weights so that the layer's output changes least, layer after layer, each on what the rounded layers before it give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from deburr.ir.errors import DeburrError
from deburr.ir.graph import Graph
from deburr.passes.core import Context, Pass
from deburr.passes.quantize.dialects import Role, find_dialect
from deburr.passes.quantize.placement import is_quantized, place
from deburr.passes.quantize.rounding import Rounding


@dataclass(frozen=True)
class RoundWeights(Pass):
    """Choose each weight's integer by second-order error compensation on calibration data, in place of the nearest one.

    A layer is first refitted to give, on its rounded inputs, what the float model gives there; in front of a sum, what the
    float sum lacks. Then its weights are rounded one input at a time, the others making up for the error (GPTQ, through im2col
    for convolutions); its bias takes the mean error. Integers of fewer than 8 bits are gone over once more by coordinate
    descent, in turn with the scale of each output. Needs what `calibrate` and `scale-weights` noted. Layers whose weights lie
    on the grid already are left alone.

    :param samples: how many of the calibration samples are looked at.
    :param rows: output positions of a layer that are looked at, over all samples.
    :param damping: relative to the mean variance of a layer's inputs; few samples for many inputs ask for more. auto rounds
        each layer on three quarters of the samples with several and takes what does best on the rest.
    """

    name: ClassVar[str] = "round-weights"
    main_graph_only: ClassVar[bool] = True
    needs_data: ClassVar[bool] = True
    tolerance: ClassVar[float | None] = None

    samples: int = 96
    rows: int = 65536
    damping: float | Literal["auto"] = "auto"
    dialect: str = "ort"

    def run(self, graph: Graph, context: Context) -> None:
        """:raises DeburrError: E203 for an unknown dialect or an option out of its range, E206 without calibration data."""
        dialect = find_dialect(self.dialect)
        rounding = Rounding(self.samples, self.rows, self.damping)
        rounding.check(f"pass {self}")
        if context.data is None:
            raise DeburrError("E206", "round-weights needs calibration data", hint="give --data FILE.npz")
        if is_quantized(graph):
            context.remark(graph.name, "the model is quantized already")
            return
        roles = place(graph, dialect).nodes
        nodes = [node for node, role in roles.items() if role is Role.WEIGHTED and node.input(1).qparams is not None]
        rounding.run(graph, nodes, context)
