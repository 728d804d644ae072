"""Unstructured pruning: single weights become zero, by magnitude."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from deburr.ir.errors import DeburrError
from deburr.ir.graph import Graph
from deburr.ir.types import Array, DType
from deburr.ir.value import Value
from deburr.passes.core import Context, Pass

# The inputs that hold weights: never biases, normalizations or tables of other operators.
_WEIGHTS = {"Conv": (1,), "ConvTranspose": (1,), "Gemm": (0, 1), "MatMul": (0, 1)}
Magnitudes = npt.NDArray[np.float64]
_FLOATS = (DType.FLOAT, DType.FLOAT16, DType.BFLOAT16, DType.DOUBLE)


@dataclass(frozen=True)
class PruneWeights(Pass):
    """Set the smallest weights of convolutions and matrix products to zero, by `threshold` or to reach `sparsity`.

    `threshold` zeroes every |w| below it. `sparsity` is the share of zeros: of all weights together (`scope=global`, the
    default), or of each tensor. Shapes stay, and so does the size of a dense file.
    """

    name: ClassVar[str] = "prune-weights"
    tolerance: ClassVar[float | None] = None

    threshold: float | None = None
    sparsity: float | None = None
    scope: Literal["global", "layer"] = "global"

    def run(self, graph: Graph, context: Context) -> None:
        """:raises DeburrError: E203 unless one of `threshold` (at least 0) and `sparsity` (0 to 1) is given, or neither."""
        self._check()
        if self.threshold is None and self.sparsity is None:
            context.remark(f"graph {graph.name!r}", "nothing to do", "give threshold or sparsity")
            return
        weights = list(_weights(graph))
        limits = self._limits([np.abs(array.astype(np.float64)) for _, array in weights])
        zeroed = 0
        for (value, array), limit in zip(weights, limits, strict=True):
            small = np.abs(array.astype(np.float64)) < limit
            zeroed += int(small.sum())
            if small.any():
                graph.set_constant(value, np.where(small, np.zeros((), array.dtype), array))
        if zeroed:
            context.remark(
                f"graph {graph.name!r}", f"{zeroed} weights are zero, but a dense file does not shrink by that",
                "compress the file, or remove whole channels with prune-channels",
            )  # fmt: skip

    def _check(self) -> None:
        if self.threshold is not None and self.sparsity is not None:
            raise DeburrError(
                "E203", "threshold and sparsity exclude each other", where=f"pass {self}", hint="give one of them"
            )
        if self.threshold is not None and not self.threshold >= 0:
            raise DeburrError("E203", "threshold is out of range", where=f"pass {self}", hint="give a number of at least 0")
        if self.sparsity is not None and not 0 <= self.sparsity <= 1:
            raise DeburrError("E203", "sparsity is out of range", where=f"pass {self}", hint="give a share from 0 to 1")

    def _limits(self, magnitudes: list[Magnitudes]) -> list[float]:
        """Below which magnitude a weight goes, for each tensor."""
        if self.threshold is not None or not magnitudes:
            return [self.threshold or 0.0] * len(magnitudes)
        assert self.sparsity is not None
        if self.scope == "layer":
            return [_quantile(array.ravel(), self.sparsity) for array in magnitudes]
        return [_quantile(np.concatenate([array.ravel() for array in magnitudes]), self.sparsity)] * len(magnitudes)


def _weights(graph: Graph) -> Iterator[tuple[Value, Array]]:
    """Constant weights of the graph's contractions, each once."""
    seen: set[Value] = set()
    for node in graph.nodes:
        for index in _WEIGHTS.get(node.op, ()) if node.domain in ("", "ai.onnx") else ():
            value = node.optional_input(index)
            if value is None or value in seen or value.graph is not graph or value.dtype not in _FLOATS:
                continue
            array = value.array
            if array is not None and array.ndim >= 2:
                seen.add(value)
                yield value, array


def _quantile(magnitudes: Magnitudes, share: float) -> float:
    """The smallest limit that leaves `share` of the magnitudes below it."""
    count = round(share * magnitudes.size)
    if count == 0:
        return 0.0
    return float(np.nextafter(np.partition(magnitudes, count - 1)[count - 1], np.inf))
