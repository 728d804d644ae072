"""The constant weights of a graph's contractions: never biases, normalizations or tables of other operators."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from deburr.ir.graph import Graph
from deburr.ir.node import Node
from deburr.ir.types import Array, DType
from deburr.ir.value import Value

_INPUTS = {"Conv": (1,), "ConvTranspose": (1,), "Gemm": (0, 1), "MatMul": (0, 1)}
_FLOATS = (DType.FLOAT, DType.FLOAT16, DType.BFLOAT16, DType.DOUBLE)


@dataclass(frozen=True, eq=False)
class WeightTensor:
    """A constant of at least two axes, its elements, and what two of the axes are to its (first) reader.

    `output_axis` holds the output channels (of one group, for a ConvTranspose), `summed_axis` is the one that is summed over.
    """

    value: Value
    array: Array
    output_axis: int
    summed_axis: int


def weight_tensors(graph: Graph) -> Iterator[WeightTensor]:
    """Each weight once, in the order of the nodes."""
    seen: set[Value] = set()
    for node in graph.nodes:
        for index in _INPUTS.get(node.op, ()) if node.domain in ("", "ai.onnx") else ():
            value = node.optional_input(index)
            if value is None or value in seen or value.graph is not graph or value.dtype not in _FLOATS:
                continue
            array = value.array
            if array is not None and array.ndim >= 2:
                seen.add(value)
                yield WeightTensor(value, array, *_axes(node, index, array.ndim))


def _axes(node: Node, index: int, rank: int) -> tuple[int, int]:
    """Output and input channels of a convolution; the outer and the inner dimension of a product."""
    if node.op in ("Conv", "ConvTranspose"):
        return (0, 1) if node.op == "Conv" else (1, 0)
    transposed = node.op == "Gemm" and bool(node.get("transB" if index else "transA", 0))
    outer, inner = (rank - 2, rank - 1) if (index == 0) != transposed else (rank - 1, rank - 2)
    return outer, inner
