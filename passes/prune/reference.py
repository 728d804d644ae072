"""The model as it was before the first pruning, and where its channels went: what compensation refits against."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from deburr.ir.duplicate import duplicate
from deburr.ir.model import Model
from deburr.passes.analysis.classes import Mask
from deburr.passes.core import Context

Indices = npt.NDArray[np.int64]


@dataclass
class Reference:
    """`kept[name][axis]`: which indices of the reference's value `name` are left in the model, in order; an axis that is
    missing kept all."""

    model: Model
    kept: dict[str, dict[int, Indices]] = field(default_factory=dict)

    def record(self, name: str, masks: tuple[Mask, ...]) -> None:
        """Note which indices of the value as it is now go on living; a mask of length 1 stands for an axis left alone."""
        axes = self.kept.setdefault(name, {})
        for axis, mask in enumerate(masks):
            if mask.size > 1:
                axes[axis] = axes.get(axis, np.arange(mask.size))[mask]


def reference_of(context: Context) -> Reference:
    """The reference of this run of a pipeline: made, as a copy of the model, when it is first asked for."""
    if context.reference is None:
        context.reference = Reference(duplicate(context.model))
    return context.reference
