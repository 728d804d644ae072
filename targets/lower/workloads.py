"""From a node of the lowered graph to the workload that its kernel is made for."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from deburr.ir.node import Node
from deburr.ir.types import DType
from deburr.targets.kernels import workload as w
from deburr.targets.lower import dialect


def workload(node: Node) -> w.Workload | None:
    """What a node of ours computes, on the blocked shapes that `layout` gave it; None where no template computes it."""
    if node.op in dialect.UNTEMPLATED or dialect.is_plain(node):
        return None
    return _MAKERS[node.op](node)


def _conv2d(node: Node) -> w.Workload:
    data, weight = _shape(node, 0), _shape(node, 1)
    integer, fixed, groups = node.input(0).dtype is DType.UINT8, node.get("add"), int(node.get("groups", 1))
    requantize, residual = node.get("requantize"), node.optional_input(4) is not None
    low, high = _bounds(node)
    return w.Conv2d(
        batch=data[0], in_channels=weight[1] * groups, in_height=data[2], in_width=data[3], out_channels=weight[0],
        kernel=_pair(node, "kernel"), strides=_pair(node, "strides"), pads=_pads(node), dilations=_pair(node, "dilations"),
        groups=groups, dtype="uint8" if integer else "float32", in_block=data[4], out_block=int(node.get("out_block")),
        data_zero_point=int(node.get("data_zero_point", 0)),
        requantize=w.Requantize(*requantize) if requantize else None,
        add=w.FixedPointAdd(*fixed) if fixed else None,
        float_epilogue=None if integer else w.FloatEpilogue(residual, low, high), half=bool(node.get("half", 0)),
    )  # fmt: skip


def _matmul(node: Node) -> w.Workload:
    requantize, fixed, residual = node.get("requantize"), node.get("add"), node.optional_input(4) is not None
    low, high = _bounds(node)
    return w.MatMul(
        a=_operand(node, "a"), b=None if node.get("b_shape") is None else _operand(node, "b"), out=_operand(node, "out"),
        batch=tuple(node.get("batch", ())), rows=int(node.get("rows")), columns=int(node.get("columns")),
        depth=int(node.get("depth")), dtype=_dtype(node), block=int(node.get("block")),
        a_zero_point=int(node.get("a_zero_point", 0)), b_zero_point=int(node.get("b_zero_point", 0)),
        scale=float(node.get("scale", 1.0)), requantize=w.Requantize(*requantize) if requantize else None,
        add=w.FixedPointAdd(*fixed) if fixed else None,
        float_epilogue=None if requantize else w.FloatEpilogue(residual, low, high), half=bool(node.get("half", 0)),
    )  # fmt: skip


def _operand(node: Node, name: str) -> w.Operand:
    return w.Operand(tuple(node.get(f"{name}_shape")), tuple(node.get(f"{name}_order")))


def _rows(node: Node) -> w.Workload:
    return w.Rows(
        node.get("kind"), int(node.get("rows")), int(node.get("size")), int(node.get("lanes")),
        int(node.get("channels", 0)), int(node.get("inner", 1)), float(node.get("epsilon", 0.0)),
    )  # fmt: skip


def _pool2d(node: Node) -> w.Workload:
    data, requantize = _shape(node, 0), node.get("requantize")
    return w.Pool2d(
        kind=node.get("kind"), batch=data[0], channels=int(node.get("channels")), in_height=data[2], in_width=data[3],
        kernel=_pair(node, "kernel"), strides=_pair(node, "strides"), pads=_pads(node),
        dtype=_dtype(node), block=data[4], data_zero_point=int(node.get("data_zero_point", 0)),
        multiplier=float(np.float32(node.get("multiplier", 1.0))),
        requantize=w.Requantize(*requantize) if requantize else None,
    )  # fmt: skip


def _add(node: Node) -> w.Workload:
    fixed, (low, high) = node.get("add"), _bounds(node)
    epilogue = None if fixed else w.FloatEpilogue(True, low, high)
    return w.Add(_shape(node, 0), _dtype(node), w.FixedPointAdd(*fixed) if fixed else None, epilogue)


def _quantize(node: Node) -> w.Workload:
    inverse = float(np.float32(1 / np.float64(node.get("scale"))))
    return w.Quantize(*_plain_image(node), inverse, int(node.get("zero_point")), int(node.get("out_block")))


def _dequantize(node: Node) -> w.Workload:
    n, _, height, width, block = _shape(node, 0)
    scale = float(np.float32(node.get("scale")))
    return w.Dequantize(n, int(node.get("channels")), height, width, scale, int(node.get("zero_point")), block)


def _change_layout(node: Node) -> w.Workload:
    source, target = int(node.get("from_block")), int(node.get("to_block"))
    if source:
        n, _, height, width, _ = _shape(node, 0)
    else:
        n, _, height, width = _plain_image(node)
    return w.ChangeLayout(n, int(node.get("channels")), height, width, _dtype(node), source, target)


_MAKERS: dict[str, Callable[[Node], w.Workload]] = {
    "Conv2d": _conv2d,
    "MatMul": _matmul,
    "Rows": _rows,
    "Pool2d": _pool2d,
    "Add": _add,
    "Quantize": _quantize,
    "Dequantize": _dequantize,
    "ChangeLayout": _change_layout,
}


def _shape(node: Node, index: int) -> tuple[int, ...]:
    shape = node.input(index).static_shape
    assert shape is not None
    return shape


def _plain_image(node: Node) -> tuple[int, int, int, int]:
    shape = dialect.image_of(node.input(0))
    assert shape is not None
    return shape


def _dtype(node: Node) -> str:
    dtype = node.input(0).dtype
    assert dtype is not None
    return str(dtype.numpy)


def _pair(node: Node, attribute: str) -> tuple[int, int]:
    first, second = node.get(attribute, (1, 1))
    return int(first), int(second)


def _pads(node: Node) -> tuple[int, int, int, int]:
    top, left, bottom, right = (int(pad) for pad in node.get("pads", (0, 0, 0, 0)))
    return top, left, bottom, right


def _bounds(node: Node) -> tuple[float, float]:
    return float(node.get("low", -math.inf)), float(node.get("high", math.inf))
