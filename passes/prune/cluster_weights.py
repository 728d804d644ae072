"""Weight sharing: the weights of a tensor become a few values, which can be stored as indices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from deburr.ir.errors import DeburrError
from deburr.ir.graph import Graph
from deburr.passes.core import Context, Pass
from deburr.passes.prune.weight_tensors import weight_tensors

Floats = npt.NDArray[np.float64]
_ROUNDS = 100


@dataclass(frozen=True)
class ClusterWeights(Pass):
    """Replace the weights of each tensor by `clusters` shared values, nearest in the mean square (k-means).

    Starts from evenly spaced values (Han et al. 2016, "Deep compression": linear initialization keeps the few large weights).
    `keep_zeros` leaves zeros at zero and spends one cluster on them, for models that `prune-weights` went over before. Shapes
    and dtypes stay, and so does the size of a dense file; `store-weights` makes it smaller.
    """

    name: ClassVar[str] = "cluster-weights"
    tolerance: ClassVar[float | None] = None

    clusters: int = 16
    keep_zeros: bool = True

    def run(self, graph: Graph, context: Context) -> None:
        """:raises DeburrError: E203 for fewer than 2 clusters."""
        if self.clusters < 2:
            raise DeburrError("E203", "clusters is out of range", where=f"pass {self}", hint="give at least 2")
        shared = 0
        for weight in weight_tensors(graph):
            flat = weight.array.astype(np.float64).ravel()
            if not np.isfinite(flat).all():
                context.remark(weight.value, "left alone: it holds NaN or infinity")
                continue
            made = self._clustered(flat).reshape(weight.array.shape).astype(weight.array.dtype)
            if not np.array_equal(made, weight.array):
                shared += made.size
                graph.set_constant(weight.value, made)
        if shared:
            context.remark(
                f"graph {graph.name!r}", f"{shared} weights share few values, but a dense file does not shrink by that",
                "store them with store-weights, or compress the file",
            )  # fmt: skip

    def _clustered(self, flat: Floats) -> Floats:
        """Elements after sharing; as they are where there are no more values than clusters."""
        distinct = np.unique(flat)
        if len(distinct) <= self.clusters:
            return flat
        zero = flat == 0 if self.keep_zeros and 0.0 in distinct else np.zeros(flat.shape, np.bool_)
        made = np.zeros_like(flat)
        made[~zero] = k_means(flat[~zero], self.clusters - int(zero.any()))
        return made


def k_means(flat: Floats, clusters: int) -> Floats:
    """Each element's cluster centre; Lloyd 1982 on sorted numbers, from evenly spaced centres. Empty clusters fall away."""
    order = np.argsort(flat, kind="stable")
    values = flat[order]
    sums = np.concatenate([[0.0], np.cumsum(values)])
    centres = np.linspace(values[0], values[-1], clusters)
    bounds = np.zeros(0, np.int64)
    for _ in range(_ROUNDS):
        found = np.searchsorted(values, (centres[:-1] + centres[1:]) / 2)
        if np.array_equal(found, bounds):
            break
        bounds = found
        edges = np.unique(np.concatenate([[0], bounds, [len(values)]]))
        centres = np.diff(sums[edges]) / np.diff(edges)
        bounds = edges[1:-1]
    edges = np.concatenate([[0], bounds, [len(values)]])
    made = np.empty_like(flat)
    made[order] = np.repeat(centres, np.diff(edges))
    return made
