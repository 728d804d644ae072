"""Constants in float16, and a count of what that costs."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from deburr.ir.errors import DeburrError
from deburr.ir.types import Array
from deburr.passes.core import Context

LARGEST = 65504.0
SMALLEST_NORMAL = 2.0**-14


@dataclass
class Halving:
    """Rounds float32 arrays, and remembers what lies outside of the range of float16.

    :param clips: finite numbers beyond the range become the largest; else they are refused. Infinity and NaN stay.
    """

    clips: bool
    clipped: dict[str, float] = field(default_factory=dict)  # tensor -> its largest magnitude
    elements: int = 0
    subnormal: int = 0
    vanished: int = 0

    def halved(self, array: Array, name: str) -> Array:
        """The array in float16, rounded to the nearest even.

        :raises DeburrError: E304 for a number beyond the range, where those are refused.
        """
        with np.errstate(over="ignore", under="ignore"):
            made = array.astype(np.float16)
        beyond = np.isinf(made) & np.isfinite(array)
        if beyond.any():
            magnitude = float(np.abs(array[beyond].astype(np.float64)).max())
            if not self.clips:
                raise DeburrError(
                    "E304", f"{magnitude:.3g} is beyond the range of float16", where=f"tensor {name!r}",
                    why=f"the largest float16 is {LARGEST:.0f}",
                    hint="name the nodes that read it in keep=(…), or let beyond=clip cut it off",
                )  # fmt: skip
            self.clipped[name] = magnitude
            made = np.where(beyond, np.copysign(np.float16(LARGEST), array.astype(np.float32)), made).astype(np.float16)
        small = (np.abs(array) < np.float32(SMALLEST_NORMAL)) & (array != 0)
        self.elements += array.size
        self.subnormal += int(np.count_nonzero(small))
        self.vanished += int(np.count_nonzero(small & (made == 0)))
        result: Array = made
        return result

    def explain(self, context: Context) -> None:
        """Remarks on what was cut off or lost."""
        for name, magnitude in self.clipped.items():
            reason = f"cut off at {LARGEST:.0f}: it holds numbers up to {magnitude:.3g}"
            context.remark(f"tensor {name!r}", reason, "keep=(…) leaves the nodes that read it in float32")
        if self.subnormal:
            small = f"{self.subnormal} of {self.elements} constants lie below {SMALLEST_NORMAL:.1e} and lose digits"
            context.remark("constants", f"{small}; {self.vanished} of them become zero")
