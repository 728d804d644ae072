"""Float operators that have a template of ours: Conv, Gemm, pools and sums of images."""

from __future__ import annotations

from typing import Any

import numpy as np

from deburr.ir.graph import Graph
from deburr.ir.node import Node
from deburr.ir.types import Array, DType, TensorType
from deburr.ir.value import Value
from deburr.passes.core import Context
from deburr.targets.lower import channels, dialect, matmul, movement, resize, rows
from deburr.targets.lower.windows import Window, average_window, convolution_window


def to_templates(graph: Graph, context: Context) -> None:
    """Replace float32 operators by ours where their template fits; the others go through TVM's converters, with a remark."""
    for node in list(graph.nodes):
        if node.graph is not None and dialect.is_onnx(node, "Split"):
            channels.split(node)
            continue
        build = _BUILDERS.get(node.op) if node.domain in ("", "ai.onnx") else None
        if build is None or node.graph is None:
            continue
        if node.input(0).dtype is not DType.FLOAT or not (node.output().uses or node.output().is_output):
            continue
        if matmul.is_matrix(node):
            reason = matmul.real(node)
            if reason:
                context.remark(node, f"{reason}: compiled by TVM's own converter")
            continue
        value = build(node)
        if isinstance(value, str):
            context.remark(node, f"{value}: compiled by TVM's own converter")
        elif value is not None:
            dialect.replace(node, value)


def _conv(node: Node) -> Value | str:
    window, weight, bias = convolution_window(node), node.input(1).array, node.optional_input(2)
    if isinstance(window, str):
        return window
    if weight is None or (bias is not None and bias.array is None):
        return "its weights are computed at run time"
    return _convolution(node, window, weight, None if bias is None else bias.array, int(node.get("group", 1)))


def _gemm(node: Node) -> Value | str | None:
    """Gemm or MatMul by a constant matrix, of an image of features (`matmul.is_matrix` tells)."""
    weight, shape = node.input(1).array, node.input(0).static_shape
    bias = node.optional_input(2)
    if weight is None or node.get("transA", 0) or shape is None or (bias is not None and bias.array is None):
        return "its matrices are not as a layer has them"
    matrix = weight if node.op == "Gemm" and node.get("transB", 0) else weight.T
    offset: Array | None = None
    if bias is not None and bias.array is not None:
        if bias.array.ndim > 1 and bias.array.shape[0] != 1:
            return "its bias differs from row to row"
        offset = np.broadcast_to(bias.array.reshape(-1).astype(np.float32) * np.float32(node.get("beta", 1.0)), (len(matrix),))
    scaled = matrix.astype(np.float32) * np.float32(node.get("alpha", 1.0))
    return _convolution(node, Window((1, 1)), scaled[:, :, None, None], offset, 1)


def _convolution(node: Node, window: Window, weight: Array, bias: Array | None, groups: int) -> Value:
    graph, stem = node.owner, node.name or node.output().name
    offset = np.zeros(len(weight), np.float32) if bias is None else bias
    operands = [
        node.input(0),
        dialect.constant(graph, weight.astype(np.float32, copy=False), f"{stem}.weight"),
        dialect.constant(graph, offset.astype(np.float32, copy=False), f"{stem}.bias"),
    ]
    attributes = {
        "kernel": window.kernel, "strides": window.strides, "pads": window.pads, "dilations": window.dilations, "groups": groups
    }  # fmt: skip
    return _build("Conv2d", node, operands, attributes)


def _max_pool(node: Node) -> Value | str:
    return movement.pool(node, node.input(0)) or "its window has no template"


def _average_pool(node: Node) -> Value | str | None:
    window = average_window(node)
    if isinstance(window, str):
        return rows.reduction(node) if node.op == "ReduceMean" else window
    attributes = {
        "kind": "average", "kernel": window.kernel, "strides": window.strides, "pads": window.pads,
        "multiplier": float(np.float32(1 / (window.kernel[0] * window.kernel[1]))),
    }  # fmt: skip
    return _build("Pool2d", node, [node.input(0)], attributes)


def _add(node: Node) -> Value | None:
    """The sum of two computed images of one shape, or of a product and another tensor; any other sum is elementwise to TVM."""
    a, b = node.input(0), node.input(1)
    if a.array is not None or b.array is not None or a.static_shape != b.static_shape or a.static_shape is None:
        return None
    if dialect.image_of(a) is None and not any(dialect.is_op(value.producer, "MatMul") for value in (a, b)):
        return None
    return _build("Add", node, [a, b], {})


def _build(op: str, node: Node, operands: list[Value], attributes: dict[str, Any]) -> Value:
    return dialect.build(op, operands, TensorType(DType.FLOAT, node.output().shape), attributes, like=node)


_BUILDERS = {
    "Conv": _conv,
    "Gemm": _gemm,
    "MatMul": _gemm,
    "MaxPool": _max_pool,
    "GlobalMaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": _average_pool,
    "ReduceMean": _average_pool,
    "Add": _add,
    "Concat": channels.concat,
    "Resize": resize.real,
    **rows.BUILDERS,
}
