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
from deburr.passes.quantize.arithmetic import affine
from deburr.passes.quantize.dialects import Dialect, find_dialect
from deburr.passes.quantize.gains import gains
from deburr.passes.quantize.observers import Observer, ObserverSettings
from deburr.passes.quantize.placement import is_quantized, place

ACTIVATION_TYPES = {"u8": DType.UINT8, "s8": DType.INT8}


@dataclass(frozen=True)
class Calibrate(Pass):
    """Measure the range of every activation that is to become integers, and note scale and zero point on it.

    Scales are per tensor and affine: zero is exact, and where nothing is negative the zero point is the smallest integer. The
    model still computes in float: `insert-qdq` emits what is noted here.

    :param observer: how a range is read off the data: minmax; moving-average (of each sample's extremes); percentile; entropy;
        mse; output-weighted (mse, where an element counts as much as what reads it amplifies it); or a plugin's.
    :param percentile: of the elements, what the range holds on each side (observer percentile).
    :param activations: u8 or s8, as far as the dialect has them.
    :param dialect: the back end that decides which activations these are.
    """

    name: ClassVar[str] = "calibrate"
    main_graph_only: ClassVar[bool] = True
    needs_data: ClassVar[bool] = True

    observer: str = "mse"
    percentile: float = 99.999
    activations: Literal["u8", "s8"] = "u8"
    dialect: str = "ort"

    def run(self, graph: Graph, context: Context) -> None:
        """
        :raises DeburrError: E203 for an unknown observer, dialect or type or a percentile outside (50, 100], and what
            `linear.activations` raises.
        """
        dialect, dtype = find_dialect(self.dialect), ACTIVATION_TYPES[self.activations]
        self._check(dialect, dtype)
        if is_quantized(graph):
            context.remark(graph.name, "the model is quantized already")
            return
        placement = place(graph, dialect)
        observers = self._observe(placement.observed, context)
        measured = {value: affine(*observer.range(), dtype) for value, observer in observers.items()}
        for value, source in placement.values.items():
            graph.set_qparams(value, measured[source])

    def _check(self, dialect: Dialect, dtype: DType) -> None:
        if not 50 < self.percentile <= 100:
            raise DeburrError(
                "E203", f"a percentile of {self.percentile}", where=self.name, hint="give more than 50, at most 100"
            )
        if dtype not in dialect.activations:
            raise DeburrError("E203", f"the dialect {dialect.name} has no {self.activations} activations", where=self.name)

    def _observe(self, values: list[Value], context: Context) -> dict[Value, Observer]:
        make: type[Observer] = registry.observers().find(self.observer, "E203", "observer", self.name)
        observers = {
            value: make(ObserverSettings(self.percentile, gains=gains(value) if make.needs_gains else None)) for value in values
        }
        if values:
            for batch in activations(values, context, "calibrating"):
                for value in values:
                    observers[value].update(batch.pop(value))
        return observers
