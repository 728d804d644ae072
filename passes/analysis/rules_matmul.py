"""Rules for products of matrices, as contractions: MatMul, Gemm, Einsum, with activations and constants in any place."""

from __future__ import annotations

from deburr.ir.node import Node
from deburr.passes.analysis.box import varying
from deburr.passes.analysis.contract import Labels, contract
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
    if not bias.is_constant:
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
    """The equation's letters are the axes; an ellipsis stands for the leading ones that are left."""
    terms, out = _equation(
        str(_text(node.get("equation"))), [len(shape_of(value)) for value in node.inputs if value is not None]
    )
    contract(node, walk, terms, out)


def _text(equation: object) -> str:
    return equation.decode() if isinstance(equation, bytes) else str(equation)


def _equation(equation: str, ranks: list[int]) -> tuple[list[Labels], Labels]:
    """The labels of each operand and of the output, which is implied where there is no arrow: what occurs once, sorted."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    words = left.split(",")
    dots = max([0, *(rank - len(word.replace("...", "")) for word, rank in zip(words, ranks, strict=True) if "..." in word)])
    terms = [_labels(word, rank - len(word.replace("...", ""))) for word, rank in zip(words, ranks, strict=True)]
    if arrow:
        return terms, _labels(right, dots)
    once = sorted(letter for letter in set(left) - set(",.") if left.count(letter) == 1)
    return terms, _labels(("..." if "..." in left else "") + "".join(once), dots)


def _labels(word: str, dots: int) -> Labels:
    before, ellipsis, behind = word.partition("...")
    return (*before, *((f"batch{axis}" for axis in range(dots, 0, -1)) if ellipsis else ()), *behind)
