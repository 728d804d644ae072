"""Matrix products on integers whose scale is measured while the model runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from deburr.ir.graph import Graph
from deburr.ir.node import Node
from deburr.ir.ops import imports_of, owning_function
from deburr.ir.types import DType, TensorType
from deburr.ir.value import Value
from deburr.passes.clean.common import bypass, has_references, is_standard
from deburr.passes.core import Context, Pass
from deburr.passes.quantize.arithmetic import quantize
from deburr.passes.quantize.rounding import Rounding
from deburr.passes.quantize.scale_weights import fitted_range
from deburr.passes.quantize.weight_format import WeightFormat
from deburr.passes.quantize.weight_uses import weight_axis
from deburr.passes.quantize.weighted import bias_of, refusal

DYNAMIC = 11  # the opset that brought DynamicQuantizeLinear
LONGEST_SUM = (2**31 - 1) // (255 * 127)  # products whose sum is sure to fit 32 bits
_OTHERS = ("Conv", "ConvTranspose", "GRU", "LSTM", "RNN")  # multiply weights too


@dataclass(frozen=True)
class QuantizeDynamically(Pass):
    """Compute matrix products by constant weights on integers, with activation scales that are measured at run time.

    No data is needed. Weights are int8, symmetric, with a scale for each output channel; DynamicQuantizeLinear makes the
    activations u8, one scale for the whole tensor: so a sample's result depends a little on what else is in its batch. What
    comes out is what ONNX Runtime fuses to DynamicQuantizeMatMul. Convolutions and recurrent layers stay float.

    :param rounding: second-order looks at calibration data where there is some, as `round-weights` does, on float inputs.
    """

    name: ClassVar[str] = "quantize-dynamically"
    minimum_opset: ClassVar[int] = DYNAMIC
    tolerance: ClassVar[float | None] = None

    rounding: Literal["second-order", "nearest"] = "second-order"

    def run(self, graph: Graph, context: Context) -> None:
        """:raises DeburrError: E304 for weights that are NaN or infinite."""
        if imports_of(owning_function(graph, context.model), context.model).get("", 0) < DYNAMIC:
            context.remark(graph.name, f"the function imports an opset before {DYNAMIC}: it stays float")
            return
        nodes = []
        for node in graph.nodes:
            reason = _refusal(node)
            if reason:
                context.remark(node, f"left in float: {reason}")
            elif reason is not None:
                nodes.append(node)
        clones: dict[tuple[Value, int | None], Value] = {}
        for node in nodes:
            _note_scale(node, clones)
        if graph is context.model.graph and self.rounding == "second-order":
            Rounding().run_where_data_is(graph, nodes, context)
        emitter = _Emitter(graph)
        weights = dict.fromkeys(node.input(1) for node in nodes)
        for node in nodes:
            emitter.emit(node)
        for value in weights:
            value.graph.set_qparams(value, None)
            if not value.uses and not value.is_output:
                value.graph.remove_value(value)


def _refusal(node: Node) -> str | None:
    """Why a layer stays float; nothing where it need not; None for operators that multiply no weights."""
    if is_standard(node, *_OTHERS):
        return f"there is no dynamic {node.op}"
    if not is_standard(node, "Gemm", "MatMul"):
        return "its attributes are the caller's" if node.op == "Gemm" and has_references(node) else None
    reason = refusal(node)
    if reason:
        return reason
    weights = node.input(1)
    shape = weights.static_shape or ()
    if len(shape) != 2:
        return "its weights are no matrix"
    if node.get("transA", 0):
        return "its data is transposed"
    if weights.constant and weights.constant.size // max(shape[weight_axis(node, 1) or 0], 1) > LONGEST_SUM:
        return f"sums of more than {LONGEST_SUM} products may not fit 32 bits"
    return ""


def _note_scale(node: Node, clones: dict[tuple[Value, int | None], Value]) -> None:
    """Weights that are read along another axis as well are cloned, once for each axis."""
    weights, axis = node.input(1), weight_axis(node, 1)
    assert weights.constant is not None
    if weights.qparams is not None and weights.qparams.axis != axis:
        key = weights, axis
        if key not in clones:
            clones[key] = node.owner.add_constant(weights.constant, weights.name)
        weights = clones[key]
        node.set_input(1, weights)
    form = WeightFormat()
    weights.graph.set_qparams(weights, form.qparams(*fitted_range(weights, form, axis), axis))


class _Emitter:
    """Activations that several products read are quantized once, weights that several read stored once."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._data: dict[Value, Node] = {}
        self._weights: dict[Value, Value] = {}

    def emit(self, node: Node) -> None:
        """Put DynamicQuantizeLinear, MatMulInteger, Cast, Mul and maybe Add in the place of `node`."""
        weights, bias, shape = node.input(1), bias_of(node), node.output().shape
        assert weights.qparams is not None
        integers, scale, zero = self._quantized(node.input(0), node).outputs
        product = self._add(
            node, "MatMulInteger", [integers, self._stored(weights, node), zero], TensorType(DType.INT32, shape)
        )
        real = self._add(node, "Cast", [product], TensorType(DType.FLOAT, shape), to=int(DType.FLOAT))
        steps = weights.qparams.scale * np.float32(node.get("alpha", 1.0))
        factor = self.graph.add_constant(steps, f"{weights.name}_scale")
        scales = self._add(node, "Mul", [scale, factor], TensorType(DType.FLOAT, steps.shape))
        made = self._add(node, "Mul", [real, scales], TensorType(DType.FLOAT, shape))
        if bias is not None:
            made = self._add(node, "Add", [made, self._scaled(bias, node)], TensorType(DType.FLOAT, shape))
        name = node.output().name
        bypass(node.output(), made)
        self.graph.remove(node)
        self.graph.rename(made, name)

    def _scaled(self, bias: Value, node: Node) -> Value:
        beta = node.get("beta", 1.0)
        if beta == 1.0 or bias.array is None:
            return bias
        return self.graph.add_constant(bias.array.astype(np.float32) * np.float32(beta), bias.name)

    def _quantized(self, data: Value, node: Node) -> Node:
        """The DynamicQuantizeLinear of a value, before the first node that needs it."""
        if data not in self._data:
            names = [f"{data.name}_{what}" for what in ("quantized", "scale", "zero_point")]
            made = self._data[data] = self.graph.add_node("DynamicQuantizeLinear", [data], names, before=node)
            self.graph.set_type(made.output(0), TensorType(DType.UINT8, data.shape))
            self.graph.set_type(made.output(1), TensorType(DType.FLOAT, ()))
            self.graph.set_type(made.output(2), TensorType(DType.UINT8, ()))
        return self._data[data]

    def _stored(self, weights: Value, node: Node) -> Value:
        """The integers, [inputs, outputs]."""
        if weights not in self._weights:
            assert weights.qparams is not None
            integers = quantize(np.asarray(weights.array, np.float32), weights.qparams)
            if weight_axis(node, 1) == 0:
                integers = np.ascontiguousarray(integers.T)
            self._weights[weights] = self.graph.add_constant(integers, f"{weights.name}_quantized")
        return self._weights[weights]

    def _add(self, node: Node, op: str, inputs: Sequence[Value | None], type_: TensorType, **attributes: int) -> Value:
        made = self.graph.add_node(op, inputs, [node.output().name], attributes, before=node).output()
        self.graph.set_type(made, type_)
        return made
