"""What stands behind an accumulator: activations as bounds, the scale of the output, the multiplier between."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from deburr.ir.node import Node
from deburr.ir.value import Value
from deburr.targets.lower import dialect
from deburr.targets.lower.borders import Scale


@dataclass(frozen=True)
class Bounds:
    """Real numbers between which an activation keeps its result."""

    low: float = -math.inf
    high: float = math.inf

    def within(self, low: float, high: float) -> Bounds:
        """These bounds, applied behind a clamp to [low, high]."""
        return Bounds(min(max(low, self.low), self.high), max(min(high, self.high), self.low))

    def quantized(self, scale: Scale) -> tuple[int, int]:
        """The bounds among the u8 of `scale`: rounding is monotone, so clamping behind it gives the same bits."""
        return _level(self.low, scale), _level(self.high, scale)


@dataclass(frozen=True)
class Output:
    """Where a rule's result goes: its scale (None: it stays float32), the bounds, and the value that it replaces."""

    scale: Scale | None
    bounds: Bounds
    value: Value

    @property
    def requantize(self) -> tuple[int, int, int] | None:
        """Zero point, low, high."""
        return None if self.scale is None else (self.scale.zero_point, *self.bounds.quantized(self.scale))

    @property
    def real_scale(self) -> np.float32:
        """The step of the output; 1 where it stays float32."""
        return np.float32(1 if self.scale is None else self.scale.scale)


def walk_activations(value: Value, scale: Scale | None = None) -> tuple[Value, Bounds]:
    """Through Relu and Clip, up to the value that they act on: `value` itself where another reader needs what lies between."""
    bounds = Bounds()
    while True:
        node = value.producer
        limits = None if node is None or not dialect.single_use(value) else limits_of(node)
        if node is None or limits is None:
            return value, bounds
        bounds, value = bounds.within(*limits), node.input(0)


def limits_of(node: Node) -> tuple[float, float] | None:
    """The two numbers between which Relu or Clip clamps; None for any other operator, or limits that are no constants."""
    if dialect.is_onnx(node, "Relu"):
        return 0.0, math.inf
    if not dialect.is_onnx(node, "Clip"):
        return None
    low, high = _limit(node, 1, "min", -math.inf), _limit(node, 2, "max", math.inf)
    return None if low is None or high is None or low > high else (low, high)


def _limit(node: Node, index: int, attribute: str, default: float) -> float | None:
    value = node.optional_input(index)
    return float(node.get(attribute, default)) if value is None else dialect.scalar(value)


def _level(bound: float, scale: Scale) -> int:
    if math.isinf(bound):
        return 0 if bound < 0 else 255
    level = int(np.rint(np.float32(bound) / np.float32(scale.scale))) + scale.zero_point
    return min(max(level, 0), 255)
