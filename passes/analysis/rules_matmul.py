"""Rules for products of matrices, as contractions: MatMul, Gemm, Einsum, with activations and constants in any place."""

from __future__ import annotations

from deburr.ir.node import Node
from deburr.passes.analysis.box import varying
from deburr.passes.analysis.contract import contract
from deburr.passes.analysis.einsum import labels_of
from deburr.passes.analysis.quantized import constant_behind
from deburr.passes.analysis.walk import DeclineError, Walk, shape_of


def matmul(node: Node, walk: Walk) -> None:
    """[..., M, K] times [..., K, N]; an operand of rank 1 is a row or a column."""
    left, right = (len(shape_of(node.input(index))) for index in range(2))
    batch = tuple(f"batch{axis}" for axis in range(max(left, right, 2) - 2, 0, -1))
    first = (*batch[len(batch) - max(left - 2, 0) :], "m", "k") if left > 1 else ("k",)
    second = (*batch[len(batch) - max(right - 2, 0) :], "k", "n") if right > 1 else ("k",)
    out = (*batch, *(("m",) if left > 1 else ()), *(("n",) if right > 1 else ()))
    contract(node, walk, [first, second], out)


def gemm(node: Node, walk: Walk) -> None:
    """A [M, K], or [K, M] with transA; B [K, N], or [N, K] with transB; C is broadcast to [M, N]. Factors change nothing."""
    first = ("k", "m") if node.get("transA", 0) else ("m", "k")
    second = ("n", "k") if node.get("transB", 0) else ("k", "n")
    made = contract(node, walk, [first, second], ("m", "n"))
    bias = node.optional_input(2)
    if bias is None:
        return
    if constant_behind(bias) is None:
        if any(size != 1 and axis < len(shape_of(bias)) and shape_of(bias)[-1 - axis] == 1
               for axis, size in enumerate(reversed(made.shape))):  # fmt: skip
            raise DeclineError("a single channel of its bias is broadcast over others")
        ids = walk.of(bias)
        walk.classes.union(made, ids) if made.size > 1 or ids.size > 1 else None
        return
    for axis, dim in enumerate(shape_of(bias)):
        place = axis + 2 - len(shape_of(bias))
        if dim != 1 and place in varying(made):
            walk.slice(node, 2, axis, made, "bias", ids_axis=place)


def einsum(node: Node, walk: Walk) -> None:
    """The equation's letters are the axes."""
    labels = labels_of(node)
    assert labels is not None  # the driver has checked the ranks
    contract(node, walk, *labels)
