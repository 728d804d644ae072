"""Statistics of BatchNormalization measured anew: the cheapest way to mend what pruning or rounding did to them.

Layer after layer, on what the normalizations before it give now (Li et al. 2020, "EagleEye", section 3: adaptive batch
normalization).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from deburr.ir.errors import DeburrError
from deburr.ir.graph import Graph
from deburr.ir.node import Node
from deburr.passes.clean.common import give_constant, is_standard
from deburr.passes.core import Context, Pass
from deburr.passes.linear.sweep import Sweep

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ReestimateBatchNorm(Pass):
    """Measure mean and variance of every BatchNormalization on the data, in place of those from training.

    Goes before `fold-batch-norm`, behind what changed the layers in front of the normalizations. No labels and no training.
    """

    name: ClassVar[str] = "reestimate-batch-norm"
    main_graph_only: ClassVar[bool] = True
    needs_data: ClassVar[bool] = True
    tolerance: ClassVar[float | None] = None

    batch: int = 32

    def run(self, graph: Graph, context: Context) -> None:
        """:raises DeburrError: E203 for a batch below 1, E206 without data, E304 where a value is NaN or infinite."""
        if self.batch < 1:
            raise DeburrError("E203", "batch is out of range", where=f"pass {self}", hint="it is at least 1")
        if context.data is None:
            raise DeburrError("E206", f"{self.name} needs data", where=f"pass {self}", hint="give --data FILE.npz")
        nodes = [node for node in graph.nodes if is_standard(node, "BatchNormalization") and _can_be_measured(node, context)]
        if not nodes:
            context.remark(f"graph {graph.name!r}", "no BatchNormalization is left", "put it before fold-batch-norm")
            return
        sweep = Sweep(context.model, context.data, self.batch)
        for node in context.progress(nodes, len(nodes), "measuring BatchNormalization"):
            mean, variance = _statistics(node, sweep)
            for index, array in ((3, mean), (4, variance)):
                old = node.input(index)
                assert old.dtype is not None
                give_constant(node, index, array.astype(old.dtype.numpy), old.name)


def _can_be_measured(node: Node, context: Context) -> bool:
    if node.get("training_mode", 0) or len(node.outputs) > 1:
        context.remark(node, "it takes its statistics from the batch")
        return False
    if node.input(3).array is None or node.input(4).array is None:
        context.remark(node, "its statistics are computed")
        return False
    return True


def _statistics(node: Node, sweep: Sweep) -> tuple[Floats, Floats]:
    """Of each channel, over samples and positions; the sums are taken around the mean of the first batch."""
    count, total, squares, middle = 0, np.zeros(1), np.zeros(1), np.zeros(1)
    for (x,) in sweep.values([node.input(0)]):
        rows = np.moveaxis(np.asarray(x, np.float64), 1, -1).reshape(-1, x.shape[1])
        if not np.isfinite(rows).all():
            raise DeburrError("E304", "NaN or infinity inside the model", where=f"tensor {node.input(0).name!r}")
        middle = middle if count else rows.mean(0)
        count, total, squares = count + len(rows), total + (rows - middle).sum(0), squares + np.square(rows - middle).sum(0)
    shift = total / count
    return middle + shift, np.maximum(squares / count - np.square(shift), 0)
