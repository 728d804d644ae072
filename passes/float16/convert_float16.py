"""Half the bytes: float16 in place of float32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from deburr.ir.constants import Constant
from deburr.ir.evaluate import capture
from deburr.ir.graph import Graph
from deburr.ir.node import Node
from deburr.ir.types import DType, TensorType
from deburr.ir.value import Value
from deburr.passes.core import Context, Pass
from deburr.passes.float16.plan import Plan, Precise, float_values
from deburr.passes.float16.rounding import LARGEST, Halving
from deburr.passes.float16.slots import Slots

SAMPLES = 16  # of the calibration data, to see how large activations get
HEADROOM = LARGEST / 2  # for what those samples do not show


@dataclass(frozen=True)
class ConvertFloat16(Pass):
    """Turn float32 weights and activations into float16, with a Cast wherever an operator needs float32.

    What may change is read off the ONNX schema. Quantizers, operators of other domains and calls of functions stay in float32,
    and so does what counts positions or sizes. Calibration data is not needed; with it, nodes whose numbers come near the end
    of float16's range, or leave it, stay in float32.

    :param keep: names of nodes or values as `fnmatch` reads them; those nodes, and nodes beside those values, stay in float32.
    :param keep_io: inputs and outputs of the model keep their type, by a Cast each.
    :param precise: what stays in float32 though it could change: sums is reductions, Exp, Pow and the like, and the elementwise
        operators behind them; all is normalizations and Softmax too, for back ends that sum in float16; none is nothing.
    :param beyond: whether constants beyond 65504 are cut off there, with a remark, or refused.
    """

    name: ClassVar[str] = "convert-float16"
    main_graph_only: ClassVar[bool] = True  # it looks after subgraphs itself: values cross their borders
    minimum_opset: ClassVar[int] = 7
    tolerance: ClassVar[float | None] = 1e-2

    keep: tuple[str, ...] = ()
    keep_io: bool = True
    precise: Precise = "sums"
    beyond: Literal["clip", "refuse"] = "clip"

    def run(self, graph: Graph, context: Context) -> None:
        """:raises DeburrError: E203 for a name in `keep` that fits nothing, E304 for a constant that is refused."""
        plan = Plan(context.model, context)
        plan.keep(self.keep)
        plan.leave_precise(self.precise)
        plan.leave_counts()
        if context.data is not None and len(context.data):
            plan.leave_large(_magnitudes(graph, context), HEADROOM)
        _Converter(graph, plan.halves, Halving(self.beyond == "clip"), context).run(self.keep_io)


def _magnitudes(graph: Graph, context: Context) -> dict[Value, float]:
    """The largest finite magnitude of each float value of the main graph."""
    assert context.data is not None
    values = {value.name: value for value in float_values(graph)}
    found = dict.fromkeys(values.values(), 0.0)
    for batch in capture(context.model, list(values), context.data.take(SAMPLES), 1):
        for name, array in batch.items():
            finite = np.abs(array[np.isfinite(array)]).max(initial=0.0)
            found[values[name]] = max(found[values[name]], float(finite))
    return found


class _Converter:
    def __init__(self, graph: Graph, halves: dict[Node, Slots], halving: Halving, context: Context) -> None:
        self.graph, self.halves, self.halving, self.context = graph, halves, halving, context
        self._halved: set[Value] = set()  # values that were float32, and are float16 now
        self._casts: dict[tuple[Value, DType], Value] = {}

    def run(self, keep_io: bool) -> None:
        graphs = list(self.graph.walk())
        if not keep_io:
            self._retype([value for value in self.graph.inputs if value.dtype is DType.FLOAT and value.constant is None])
        for node, slots in self.halves.items():
            self._name_type(node, slots.attribute)
            self._retype([value for value, may in zip(node.outputs, slots.outputs, strict=True) if may and value is not None])
        for graph in graphs:
            for value in graph.values:
                self._connect(value)
        for graph in graphs:
            half = graph is self.graph and not keep_io
            for value in graph.outputs:
                self._give(graph, value, DType.FLOAT16 if half else DType.FLOAT)
        self.halving.explain(self.context)

    def _retype(self, values: list[Value]) -> None:
        for value in values:
            assert isinstance(value.type, TensorType)
            value.graph.set_type(value, TensorType(DType.FLOAT16, value.type.shape))
            self._halved.add(value)

    def _name_type(self, node: Node, attribute: str) -> None:
        if attribute == "to":
            node.set_attribute("to", int(DType.FLOAT16))
        elif attribute:
            constant: Constant = node.get(attribute)
            node.set_attribute(attribute, Constant.of(self.halving.halved(constant.array, node.output().name)))

    def _connect(self, value: Value) -> None:
        """Give each reader the type that it is to have."""
        if value.dtype is not DType.FLOAT and value not in self._halved:
            return
        readers = [(use, self._takes_half(use.node, use.index)) for use in value.uses]
        if value.is_constant:
            self._connect_constant(value)
            return
        wrong = [(use, half) for use, half in readers if half != (value in self._halved)]
        for use, half in wrong:
            use.node.set_input(use.index, self._cast(value, DType.FLOAT16 if half else DType.FLOAT))

    def _connect_constant(self, value: Value) -> None:
        uses = [use for use in value.uses if self._takes_half(use.node, use.index)]
        if not uses or value.array is None:
            return
        array = self.halving.halved(value.array, value.name)
        if len(uses) == len(value.uses) and not value.is_output:
            value.graph.set_constant(value, array)
            return
        halved = value.graph.add_constant(array, f"{value.name}_float16")
        for use in uses:
            use.node.set_input(use.index, halved)

    def _takes_half(self, node: Node, index: int) -> bool:
        slots = self.halves.get(node)
        return slots is not None and slots.inputs[index]

    def _cast(self, value: Value, dtype: DType) -> Value:
        if (value, dtype) not in self._casts:
            graph = value.graph
            first = next(iter(graph.nodes)) if value.producer is None else None
            made = graph.add_node(
                "Cast", [value], [f"{value.name}_{dtype}"], {"to": int(dtype)}, before=first, after=value.producer
            ).output()
            shape = value.type.shape if isinstance(value.type, TensorType) else None
            graph.set_type(made, TensorType(dtype, shape))
            self._casts[value, dtype] = made
        return self._casts[value, dtype]

    def _give(self, graph: Graph, value: Value, dtype: DType) -> None:
        """Let an output of a graph have this type, under its name."""
        is_other = value.dtype in (DType.FLOAT, DType.FLOAT16) and value.dtype is not dtype
        is_ours = value in self._halved or dtype is DType.FLOAT16
        if not is_other or not is_ours or value.producer is None:
            return
        made, name = self._cast(value, dtype), value.name
        if value.graph is graph:
            graph.rename(value, graph.fresh_name(name))
            graph.rename(made, name)
        graph.set_outputs([made if output is value else output for output in graph.outputs])
