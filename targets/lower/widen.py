"""Float16 models compute in float32: our templates do, and most CPUs know float16 only as a way of storing numbers.

Weights keep the values that float16 gave them. What lies between operators is no longer rounded, so results are nearer to the
float32 model than those of float16 arithmetic.
"""

from __future__ import annotations

import numpy as np

from deburr.ir.constants import Constant
from deburr.ir.graph import Graph
from deburr.ir.model import Model
from deburr.ir.node import Node
from deburr.ir.types import DType, TensorType
from deburr.ir.value import Value
from deburr.passes.clean.common import bypass
from deburr.passes.core import Context
from deburr.targets.kernels.chunks import LONGEST
from deburr.targets.lower import dialect

_TYPE_ATTRIBUTES = ("dtype", "to")
# What `widen` tells of products by constants, on a GPU or not.
IN_HALF = {
    True: "multiplied in float16 on tensor cores, summed in float32",
    False: f"multiplied in float16, up to {LONGEST} products summed in float16 and those sums in float32",
}


def holds_float16(model: Model) -> bool:
    """Whether any value of the main graph is float16."""
    return any(value.dtype is DType.FLOAT16 for value in model.graph.values)


def widen(model: Model, context: Context, *, products: str = "") -> None:
    """Turn every float16 value of the main graph into float32, with a Cast at float16 inputs and outputs of the model.

    :param products: how those by constants are computed, where `multiply_in_float16` is to follow: for what is told.
    """
    graph = model.graph
    if not holds_float16(model):
        return
    how = f"{products}, else computed in float32" if products else "computed in float32, which loses nothing"
    context.remark(graph.name, f"it is float16: {how}")
    for value in graph.inputs:
        if value.dtype is DType.FLOAT16:
            _cast_input(graph, value)
    for value in graph.values:
        if value.dtype is DType.FLOAT16 and not value.is_input:
            _widen_value(graph, value)
    for node in list(graph.nodes):
        _widen_attributes(node)
    for node in list(graph.nodes):
        if dialect.is_onnx(node, "Cast") and node.input(0).dtype is node.output().dtype is DType.FLOAT:
            _drop_cast(graph, node)


def multiply_in_float16(graph: Graph) -> None:
    """Let instructions that want it round what a product by constants multiplies, where the constants are float16 already.

    The model rounds what lies between its operators; this rounds only what such an instruction reads. Products of two
    activations stay in float32.
    """
    for node in graph.nodes:
        if dialect.is_op(node, "Conv2d", "MatMul") and node.input(0).dtype is DType.FLOAT:
            weight = node.input(1).array
            if weight is not None and np.array_equal(weight, weight.astype(np.float16).astype(np.float32)):
                node.set_attribute("half", 1)


def _cast_input(graph: Graph, value: Value) -> None:
    uses, first = value.uses, next(iter(graph.nodes))
    wide = graph.add_node("Cast", [value], [f"{value.name}_float"], {"to": int(DType.FLOAT)}, before=first).output()
    graph.set_type(wide, TensorType(DType.FLOAT, value.shape))
    for use in uses:
        use.node.set_input(use.index, wide)


def _widen_value(graph: Graph, value: Value) -> None:
    if value.array is not None:
        graph.set_constant(value, np.asarray(value.array, np.float32))
        return
    graph.set_type(value, TensorType(DType.FLOAT, value.shape))
    if not value.is_output:
        return
    name = value.name
    half = graph.add_node("Cast", [value], [f"{name}_float16"], {"to": int(DType.FLOAT16)}).output()
    graph.set_type(half, TensorType(DType.FLOAT16, value.shape))
    graph.set_outputs([half if output is value else output for output in graph.outputs])
    graph.rename(value, graph.fresh_name(f"{name}_float"))
    graph.rename(half, name)


def _widen_attributes(node: Node) -> None:
    """The types that attributes name; the Cast to a float16 output stays."""
    for name, attribute in list(node.attributes.items()):
        if name in _TYPE_ATTRIBUTES and attribute.value == DType.FLOAT16 and node.output().dtype is DType.FLOAT:
            node.set_attribute(name, int(DType.FLOAT))
        elif isinstance(attribute.value, Constant) and attribute.value.dtype is DType.FLOAT16:
            node.set_attribute(name, Constant.of(np.asarray(attribute.value.array, np.float32)))


def _drop_cast(graph: Graph, node: Node) -> None:
    """A Cast that changes nothing any more."""
    value = node.output()
    if bypass(value, node.input(0)):
        graph.remove(node)
