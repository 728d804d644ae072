"""Puts QuantizeLinear and DequantizeLinear nodes into a graph, with as few bytes around them as they take."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from deburr.ir.graph import Graph
from deburr.ir.node import Node
from deburr.ir.types import Array, DType, QParams, TensorType
from deburr.ir.value import Use, Value
from deburr.passes.quantize.arithmetic import dequantize, limits


class Emitter:
    """Equal scales and zero points become one constant. What is made is called q (integers), s, z, f (float before Q), d, and c
    and b (clipped, and its bounds)."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._constants: dict[tuple[str, bytes, tuple[int, ...]], Value] = {}

    def replace(self, value: Value, source: Value, qparams: QParams) -> None:
        """Let every reader of `value` read what is left of `source` after quantization, which takes over the name.

        :param source: `value`, or what stands before the activation functions that lead to it, which are removed.
        """
        graph, uses, is_output = self.graph, value.uses, value.is_output
        assert source.producer is not None
        integers = self._quantize(source, qparams, value.producer or source.producer)
        dequantized = self._dequantize(integers, qparams, after=integers.producer)
        graph.set_type(dequantized, value.type)
        for use in uses:
            use.node.set_input(use.index, dequantized)
        if is_output:
            graph.set_outputs([dequantized if output is value else output for output in graph.outputs])
        name = value.name
        if value is source:
            graph.rename(value, graph.fresh_name("f"))
        else:
            _remove_chain(graph, value, source)
        graph.rename(dequantized, name)

    def quantize_for(self, value: Value, qparams: QParams, readers: Iterable[Use]) -> None:
        """Let only these readers read what is left of `value` after quantization; the others, and its name, stay."""
        integers = self._quantize(value, qparams, value.producer)
        dequantized = self._dequantize(integers, qparams, after=integers.producer)
        self.graph.set_type(dequantized, value.type)
        for use in readers:
            use.node.set_input(use.index, dequantized)

    def dequantize_behind(self, value: Value, qparams: QParams) -> None:
        """Let every reader of `value`, which now holds integers, read what they stand for, which takes over the name."""
        graph, uses, is_output, name = self.graph, value.uses, value.is_output, value.name
        real = self._dequantize(value, qparams, after=value.producer)
        graph.set_type(real, value.type)
        graph.set_type(value, TensorType(qparams.dtype, value.shape))
        for use in uses:
            use.node.set_input(use.index, real)
        if is_output:
            graph.set_outputs([real if output is value else output for output in graph.outputs])
        graph.rename(value, graph.fresh_name("q"))
        graph.rename(real, name)

    def dequantized(self, constant: Value, integers: Array, qparams: QParams, reader: Node) -> Value:
        """The integers as a constant, with a DequantizeLinear in front of `reader`; `constant` stays as it is."""
        stored = self.graph.add_constant(integers, "q")
        value = self._dequantize(stored, qparams, before=reader)
        self.graph.set_type(value, constant.type)
        return value

    def drop(self, constant: Value, heir: Value) -> None:
        """Remove a constant that nothing reads any more; `heir` takes over its name."""
        if constant.uses or constant.is_output or constant.graph is not self.graph or not constant.is_constant:
            return
        name = constant.name
        self.graph.remove_value(constant)
        self.graph.rename(heir, name)

    def _quantize(self, value: Value, qparams: QParams, after: Node | None) -> Value:
        before = next(iter(self.graph.nodes)) if after is None else None
        if qparams.bits is not None:
            value = self._clip(value, qparams, before, after)
            before, after = None, value.producer
        inputs = [value, *self._parameters(qparams)]
        name = self.graph.fresh_name("q")
        node = self.graph.add_node("QuantizeLinear", inputs, [name], _axis(qparams), before=before, after=after)
        self.graph.set_type(node.output(), TensorType(qparams.dtype, value.shape))
        return node.output()

    def _clip(self, value: Value, qparams: QParams, before: Node | None, after: Node | None) -> Value:
        """What integers of fewer bits than their type has stand for: QuantizeLinear alone saturates at the ends of the type."""
        ends = np.array(limits(qparams.dtype, qparams.bits)).astype(qparams.dtype.numpy)
        inputs = [value, *(self._constant("b", number) for number in dequantize(ends, qparams))]
        node = self.graph.add_node("Clip", inputs, [self.graph.fresh_name("c")], before=before, after=after)
        self.graph.set_type(node.output(), value.type)
        return node.output()

    def _dequantize(
        self,
        integers: Value,
        qparams: QParams,
        *,
        before: Node | None = None,
        after: Node | None = None,
    ) -> Value:
        inputs = [integers, *self._parameters(qparams)]
        name = self.graph.fresh_name("d")
        return self.graph.add_node("DequantizeLinear", inputs, [name], _axis(qparams), before=before, after=after).output()

    def _parameters(self, qparams: QParams) -> list[Value]:
        """Scale and zero point. Biases do without the latter, and so do signed integers in blocks, whose zeros would take up to
        a quarter of what the scales take; kernels look for those of activations and of weights per channel."""
        scale = self._constant("s", qparams.scale)
        if qparams.dtype is DType.INT32 or (qparams.block_size is not None and qparams.dtype in (DType.INT4, DType.INT8)):
            assert not qparams.zero_point.any()
            return [scale]
        return [scale, self._constant("z", qparams.zero_point.astype(qparams.dtype.numpy))]

    def _constant(self, base: str, array: Array) -> Value:
        key = (str(array.dtype), array.tobytes(), array.shape)
        if key not in self._constants:
            self._constants[key] = self.graph.add_constant(np.array(array), base)
        return self._constants[key]


def _axis(qparams: QParams) -> dict[str, int]:
    """The attributes, left out where they are the default or mean nothing."""
    axis = {} if qparams.axis in (None, 1) else {"axis": int(qparams.axis or 0)}
    return axis if qparams.block_size is None else {**axis, "block_size": qparams.block_size}


def _remove_chain(graph: Graph, value: Value, source: Value) -> None:
    """Remove the activation functions between `source` and `value`, which nothing reads any more."""
    while value is not source:
        node = value.producer
        assert node is not None
        value = node.input(0)
        graph.remove(node)
