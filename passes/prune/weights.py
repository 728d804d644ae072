"""Unstructured pruning: single weights become zero, by magnitude."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from deburr.ir.errors import DeburrError
from deburr.ir.graph import Graph
from deburr.passes.core import Context, Pass
from deburr.passes.prune.pattern import Magnitudes, block_magnitudes, outside_pattern
from deburr.passes.prune.weight_tensors import WeightTensor, weight_tensors


@dataclass(frozen=True)
class PruneWeights(Pass):
    """Set the smallest weights of convolutions and matrix products to zero, by `threshold`, `sparsity` or `pattern`.

    `threshold` zeroes every |w| below it. `sparsity` is the share of zeros: of all weights together (`scope=global`, the
    default), or of each tensor. `pattern=(2,4)` keeps the 2 largest of every 4 neighbours along the axis that is summed over
    (input channels of a convolution), as sparse tensor cores read them. With `block=(4,1)` blocks of 4 output by 1 input
    channels, at each position of a kernel, go or stay as a whole: the root mean square of a block is what `threshold` and
    `sparsity` then compare. Shapes stay, and so does the size of a dense file; `store-weights` makes it smaller.
    """

    name: ClassVar[str] = "prune-weights"
    tolerance: ClassVar[float | None] = None

    threshold: float | None = None
    sparsity: float | None = None
    pattern: tuple[int, int] | None = None
    block: tuple[int, int] | None = None
    scope: Literal["global", "layer"] = "global"

    def run(self, graph: Graph, context: Context) -> None:
        """:raises DeburrError: E203 for more than one of `threshold`, `sparsity` and `pattern`, or one out of its range."""
        self._check()
        if self.threshold is None and self.sparsity is None and self.pattern is None:
            context.remark(f"graph {graph.name!r}", "nothing to do", "give threshold, sparsity or pattern")
            return
        weights = list(weight_tensors(graph))
        if self.pattern is not None:
            masks = [outside_pattern(weight.array, weight.summed_axis, *self.pattern) for weight in weights]
        else:
            magnitudes = [self._magnitudes(weight) for weight in weights]
            masks = [size < limit for size, limit in zip(magnitudes, self._limits(magnitudes), strict=True)]
        zeroed = 0
        for weight, mask in zip(weights, masks, strict=True):
            zeroed += int(mask.sum())
            if mask.any() and weight.array[mask].any():
                graph.set_constant(weight.value, np.where(mask, np.zeros((), weight.array.dtype), weight.array))
        if zeroed:
            context.remark(
                f"graph {graph.name!r}", f"{zeroed} weights are zero, but a dense file does not shrink by that",
                "store it with store-weights, compress the file, or remove whole channels with prune-channels",
            )  # fmt: skip

    def _check(self) -> None:
        if sum(option is not None for option in (self.threshold, self.sparsity, self.pattern)) > 1:
            raise self._error("threshold, sparsity and pattern exclude each other", "give one of them")
        if self.pattern is not None and not 1 <= self.pattern[0] <= self.pattern[1]:
            raise self._error("pattern is out of range", "(2,4) keeps 2 of every 4 weights")
        if self.threshold is not None and not self.threshold >= 0:
            raise self._error("threshold is out of range", "give a number of at least 0")
        if self.sparsity is not None and not 0 <= self.sparsity <= 1:
            raise self._error("sparsity is out of range", "give a share from 0 to 1")
        if self.block is not None and min(self.block) < 1:
            raise self._error("block is out of range", "(4,1) is 4 output channels by 1 input channel")
        if self.block is not None and self.threshold is None and self.sparsity is None:
            raise self._error("block says how weights go together, not how many go", "give sparsity or threshold with it")

    def _error(self, what: str, hint: str) -> DeburrError:
        return DeburrError("E203", what, where=f"pass {self}", hint=hint)

    def _magnitudes(self, weight: WeightTensor) -> Magnitudes:
        """What each element, or its block, is compared by."""
        if self.block is None:
            return np.abs(weight.array.astype(np.float64))
        return block_magnitudes(weight.array, (weight.output_axis, weight.summed_axis), self.block)

    def _limits(self, magnitudes: list[Magnitudes]) -> list[float]:
        """Below which magnitude a weight goes, for each tensor."""
        if self.threshold is not None or not magnitudes:
            return [self.threshold or 0.0] * len(magnitudes)
        assert self.sparsity is not None
        if self.scope == "layer":
            return [_quantile(array.ravel(), self.sparsity) for array in magnitudes]
        return [_quantile(np.concatenate([array.ravel() for array in magnitudes]), self.sparsity)] * len(magnitudes)


def _quantile(magnitudes: Magnitudes, share: float) -> float:
    """The smallest limit that leaves `share` of the magnitudes below it."""
    count = round(share * magnitudes.size)
    if count == 0:
        return 0.0
    return float(np.nextafter(np.partition(magnitudes, count - 1)[count - 1], np.inf))
