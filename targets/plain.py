"""Nodes of ours on tensors without blocks that combine single elements: expressions that TVM fuses with its own operators."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from deburr.ir.node import Node
from deburr.targets import moving
from deburr.targets.kernels import epilogue
from deburr.targets.kernels.workload import FixedPointAdd, FloatEpilogue, Requantize


def emit(builder: Any, node: Node, operands: list[Any]) -> Any:
    """The Relax expression for `Quantize`, `Dequantize`, `Lookup` or `Add`."""
    return builder.emit_te(partial(_DEFINITIONS[node.op], node), *operands, primfunc_name_hint=node.op.lower())


def _quantize(node: Node, data: Any) -> Any:
    from tvm import te, tirx

    inverse = tirx.const(float(np.float32(1 / np.float64(node.get("scale")))), "float32")
    how = Requantize(int(node.get("zero_point")))
    return te.compute(data.shape, lambda *at: epilogue.quantize(data[at] * inverse, how).astype("uint8"), name="quantize")


def _dequantize(node: Node, data: Any) -> Any:
    from tvm import te

    scale, zero = float(np.float32(node.get("scale"))), int(node.get("zero_point"))
    return te.compute(data.shape, lambda *at: epilogue.dequantize(data[at], zero, scale), name="dequantize")


def _lookup(node: Node, data: Any, table: Any) -> Any:
    return moving.lookup([data, table])[-1]


def _add(node: Node, a: Any, b: Any) -> Any:
    from tvm import te

    given = node.get("add")
    fixed = None if given is None else FixedPointAdd(*given)
    real = FloatEpilogue(low=float(node.get("low", -math.inf)), high=float(node.get("high", math.inf)))
    return te.compute(a.shape, lambda *at: epilogue.total(a[at], b[at], fixed, real), name="add")


_DEFINITIONS: dict[str, Callable[..., Any]] = {
    "Quantize": _quantize, "Dequantize": _dequantize, "Lookup": _lookup, "Add": _add
}  # fmt: skip
