"""Choose the integers that stand for activations, from what calibration data makes of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from deburr.ir.errors import DeburrError
from deburr.ir.graph import Graph
from deburr.ir.types import DType
from deburr.ir.value import Value
from deburr.passes import registry
from deburr.passes.core import Context, Pass
from deburr.passes.linear.activations import activations
from deburr.passes.quantize.arithmetic import affine, signed
from deburr.passes.quantize.dialects import Dialect, find_dialect
from deburr.passes.quantize.gains import gains
from deburr.passes.quantize.keep import keep
from deburr.passes.quantize.observers import Observer, ObserverSettings
from deburr.passes.quantize.placement import is_quantized, place

_NAMES = {DType.UINT8: "u8", DType.INT8: "s8", DType.UINT16: "u16", DType.INT16: "s16"}


@dataclass(frozen=True)
class Calibrate(Pass):
    """Measure the range of every activation that is to become integers, and note scale and zero point on it.

    Scales are per tensor and affine: zero is exact, and where nothing is negative the zero point is the smallest integer; where
    the dialect has it so they are symmetric, with zero point 0. The model still computes in float: `insert-qdq` emits what is
    noted here.

    :param observer: how a range is read off the data: minmax; moving-average (of each sample's extremes); percentile; entropy;
        mse; output-weighted (mse, where an element counts as much as what reads it amplifies it); or a plugin's.
    :param percentile: of the elements, what the range holds on each side (observer percentile).
    :param activations: u8, s8, u16 or s16, as far as the dialect has them; auto is the first that it has with enough bits. 16
        bits need a file of opset 21. QNN multiplies them with weights of 8 bits; ONNX Runtime computes in float between them.
    :param bits: 2 to 16: fewer than the type has are for study, with scales of (max - min) / (2**bits - 1). ONNX knows no such
        types: integers of the next larger one hold them, with a Clip in front of each quantizer for what would not fit.
        `deburr compile` fuses that Clip too; ONNX Runtime computes in float around it. 0: those of the type.
    :param dialect: the back end that decides which activations these are: ort, tensorrt, openvino or qnn.
    :param keep: nodes that stay float, by their names, those of their outputs or of constants that they read (patterns); noted
        for all passes up to insert-qdq.
    """

    name: ClassVar[str] = "calibrate"
    main_graph_only: ClassVar[bool] = True
    needs_data: ClassVar[bool] = True

    observer: str = "mse"
    percentile: float = 99.999
    activations: Literal["auto", "u8", "s8", "u16", "s16"] = "auto"
    dialect: str = "ort"
    keep: tuple[str, ...] = ()
    bits: int = 0

    def run(self, graph: Graph, context: Context) -> None:
        """
        :raises DeburrError: E203 for an unknown observer or dialect, a type that the dialect does not have, bits that it does
            not hold, a percentile outside (50, 100] or a pattern that matches nothing, and what `linear.activations` raises.
        """
        dialect = find_dialect(self.dialect)
        dtype = self._dtype(dialect)
        bits = self.bits or dtype.bits
        if is_quantized(graph):
            context.remark(graph.name, "the model is quantized already")
            return
        keep(graph, self.keep, f"pass {self}")
        placement = place(graph, dialect)
        observers = self._observe(placement.observed, 2**bits, context)
        ranges = {value: observer.range() for value, observer in observers.items()}
        ranges |= {value: _extremes(value) for value in placement.constants}
        shared: dict[Value, tuple[float, float]] = {}
        for value, (low, high) in ranges.items():
            lowest, highest = shared.get(placement.values[value], (0.0, 0.0))
            shared[placement.values[value]] = min(low, lowest), max(high, highest)
        for value, source in placement.values.items():
            low, high = shared[source]
            made = signed(low, high, dtype, bits) if dialect.symmetric else affine(low, high, dtype, bits=bits)
            graph.set_qparams(value, made)

    def _dtype(self, dialect: Dialect) -> DType:
        """The type of the integers, where the options are in their ranges."""
        if not 50 < self.percentile <= 100:
            raise DeburrError(
                "E203", f"a percentile of {self.percentile}", where=self.name, hint="give more than 50, at most 100"
            )
        if self.bits and not 2 <= self.bits <= 16:
            raise DeburrError("E203", f"activations of {self.bits} bits", where=self.name, hint="give 2 to 16, or 0")
        wanted = [dtype for dtype in dialect.activations if self.activations in ("auto", _NAMES[dtype])]
        if not wanted:
            raise DeburrError("E203", f"the dialect {dialect.name} has no {self.activations} activations", where=self.name)
        wide = [dtype for dtype in wanted if dtype.bits >= self.bits]
        if not wide:
            held = " or ".join(_NAMES[dtype] for dtype in wanted)
            raise DeburrError("E203", f"{held} of the dialect {dialect.name} do not hold {self.bits} bits", where=self.name)
        return wide[0]

    def _observe(self, values: list[Value], levels: int, context: Context) -> dict[Value, Observer]:
        make: type[Observer] = registry.observers().find(self.observer, "E203", "observer", self.name)
        observers = {
            value: make(ObserverSettings(self.percentile, levels, gains(value) if make.needs_gains else None))
            for value in values
        }
        if values:
            for batch in activations(values, context, "calibrating"):
                for value in values:
                    observers[value].update(batch.pop(value))
        return observers


def _extremes(constant: Value) -> tuple[float, float]:
    array = constant.array
    return (float(array.min()), float(array.max())) if array is not None and array.size else (0.0, 0.0)
