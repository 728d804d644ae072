"""Which constants of a graph train, and which of their zeros stay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from deburr.ir.graph import Graph
from deburr.ir.node import Node
from deburr.ir.ops import normal_domain
from deburr.ir.types import Array, DType
from deburr.ir.value import Value
from deburr.passes.core import Context

# Operator -> the inputs that hold what a network learns. The statistics of a BatchNormalization are no part of it.
_LEARNT: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        "BatchNormalization": (1, 2),
        "Conv": (1, 2),
        "ConvTranspose": (1, 2),
        "Gather": (0,),
        "Gemm": (0, 1, 2),
        "GroupNormalization": (1, 2),
        "InstanceNormalization": (1, 2),
        "LayerNormalization": (1, 2),
        "MatMul": (0, 1),
        "PRelu": (1,),
        "RMSNormalization": (1,),
    }
)
_CONTRACTIONS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# The bias behind a MatMul, the factor of a normalization that is written out: constants with one number for each channel.
_ROWS = ("Add", "Mul")


def trainable(graph: Graph) -> list[Value]:
    """The float32 constants that train, each once, in the order of the nodes that read them."""
    found: dict[Value, None] = {}
    for node in graph.nodes:
        if normal_domain(node.domain):
            continue
        for index in _LEARNT.get(node.op, (0, 1) if node.op in _ROWS else ()):
            value = node.optional_input(index)
            if value is not None and _learns(value, node, graph):
                found[value] = None
    return list(found)


def _learns(value: Value, node: Node, graph: Graph) -> bool:
    if value.array is None or value.graph is not graph or value.dtype is not DType.FLOAT or not value.array.size:
        return False
    shape = value.array.shape
    if node.op in _ROWS and sum(size > 1 for size in shape) != 1:
        return False
    return (node.op != "Gather" or len(shape) == 2) and bool(np.isfinite(value.array).all())


def explain_frozen(graph: Graph, context: Context) -> None:
    """Say which layers stay as they are."""
    for node in graph.nodes:
        if node.op not in _CONTRACTIONS or normal_domain(node.domain):
            continue
        constants = [value for value in node.inputs[:2] if value is not None and value.is_constant]
        if node.op not in ("MatMul", "Gemm") and not constants:
            context.remark(node, "does not train: its weights are computed", "run fold-constants first")
        for value in constants:
            if value.dtype is not DType.FLOAT:
                context.remark(node, f"does not train: its weights are {value.dtype}", "convert the model to float32")


def zeros(values: list[Value]) -> Iterator[npt.NDArray[np.bool_] | None]:
    """For each constant where it is zero, in its shape: pruned weights. None where none is, and for biases."""
    for value in values:
        array: Array | None = value.array
        assert array is not None
        mask = array == 0
        yield mask if array.ndim > 1 and mask.any() else None
