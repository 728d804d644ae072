"""QDQ patterns become integer operators: zero points folded, an int32 bias, a requantize epilogue.

Each rule below takes an ONNX operator whose activations are `Dequantize`d and gives the integers it leads to, or says why not.
Rules for operators that only move numbers need no quantizer behind them: they change places with the `Dequantize`.
"""

from __future__ import annotations

from collections.abc import Callable

from deburr.ir.graph import Graph
from deburr.ir.node import Node
from deburr.ir.types import DType
from deburr.ir.value import Value
from deburr.passes.core import Context
from deburr.targets.lower import borders, channels, dialect, integer_rules, lookup, matmul, movement, resize
from deburr.targets.lower.epilogue import Bounds, Output, walk_activations

Rule = Callable[[Node, Output], "Value | str"]

RULES: dict[str, Rule] = {
    "Conv": integer_rules.conv,
    "Gemm": integer_rules.gemm,
    "MatMul": integer_rules.gemm,
    "Add": integer_rules.add,
    "AveragePool": integer_rules.average_pool,
    "GlobalAveragePool": integer_rules.average_pool,
    "ReduceMean": integer_rules.average_pool,
    "Concat": integer_rules.concat,
    "Resize": resize.linear,
}


def to_integer(graph: Graph, context: Context) -> None:
    """Replace what can be computed in integers; a remark names what stays in float and why."""
    borders.mark_borders(graph, context)
    for node in list(graph.nodes):
        if node.graph is None:
            continue
        if dialect.is_op(node, "Quantize"):
            _absorb(node, context)
        elif matmul.is_matrix(node):
            reason = matmul.integer(node)
            if reason:
                context.remark(node, f"{reason}: runs in float")
        elif dialect.is_onnx(node, "Split"):
            channels.split(node)
        else:
            movement.move_dequantize_down(node)
    for node in list(graph.nodes):
        if node.graph is not None and dialect.is_onnx(node, "Conv", "Gemm", "MatMul") and not matmul.is_matrix(node):
            _keep_float_output(node)


def _absorb(quantize: Node, context: Context) -> None:
    """Operator, activations, `Quantize` -> one integer operator."""
    out = borders.Scale(float(quantize.get("scale")), int(quantize.get("zero_point")))
    source, bounds = walk_activations(quantize.input(0), out)
    table = lookup.replacement(quantize, context.model.opset)
    if table is not None:
        dialect.replace(quantize, table)
        return
    node = source.producer
    if dialect.is_op(node, "Shuffle") and dialect.single_use(source):
        _before_shuffle(quantize, source, Output(out, bounds, source), context)
        return
    rule = RULES.get(node.op) if node is not None and node.domain == "" else None
    if node is None or rule is None or matmul.is_matrix(node):
        return
    if not dialect.single_use(source):
        context.remark(node, "its float result has other readers too: runs in float", "quantize it once")
        return
    result = rule(node, Output(out, bounds, quantize.output()))
    if isinstance(result, str):
        context.remark(node, f"{result}: runs in float")
    else:
        dialect.replace(quantize, result)


def _before_shuffle(quantize: Node, shuffled: Value, out: Output, context: Context) -> None:
    """A transposed convolution: what only moves numbers does so behind the quantizer."""
    shuffle = shuffled.producer
    conv = None if shuffle is None else shuffle.input(0).producer
    if shuffle is None or conv is None or not dialect.is_onnx(conv, "Conv"):
        return
    result = integer_rules.conv(conv, Output(out.scale, out.bounds, conv.output()))
    if isinstance(result, str):
        context.remark(conv, f"{result}: runs in float")
        return
    attributes = {"strides": shuffle.get("strides"), "groups": shuffle.get("groups")}
    made = dialect.with_dtype(shuffled, DType.UINT8)
    dialect.replace(quantize, dialect.build("Shuffle", [result], made, attributes, like=quantize))


def _keep_float_output(node: Node) -> None:
    """A convolution of integers whose result nobody quantizes (the last layer, mostly): its accumulators become float32."""
    result = RULES[node.op](node, Output(None, Bounds(), node.output()))
    if not isinstance(result, str):
        dialect.replace(node, result)
