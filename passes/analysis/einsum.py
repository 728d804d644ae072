"""The labels of an Einsum: a name for each axis of each operand and of the output."""

from __future__ import annotations

from deburr.ir.node import Node

Labels = tuple[str, ...]  # equal names are multiplied and, where the output lacks them, summed


def labels_of(node: Node) -> tuple[list[Labels], Labels] | None:
    """What the equation says of the operands and the output; an ellipsis stands for the leading axes that are left.

    Without an arrow, the output has the letters that occur once, sorted. None where a rank is unknown.
    """
    shapes = [value.shape for value in node.inputs if value is not None]
    if any(shape is None for shape in shapes):
        return None
    left, arrow, right = str(node.get("equation")).replace(" ", "").partition("->")
    words = left.split(",")
    spare = [len(shape or ()) - len(word.replace("...", "")) for word, shape in zip(words, shapes, strict=True)]
    terms = [_labels(word, dots) for word, dots in zip(words, spare, strict=True)]
    if not arrow:
        once = sorted(letter for letter in set(left) - set(",.") if left.count(letter) == 1)
        right = ("..." if "..." in left else "") + "".join(once)
    return terms, _labels(right, max(dots for word, dots in zip(words, spare, strict=True)))


def _labels(word: str, dots: int) -> Labels:
    before, ellipsis, behind = word.partition("...")
    return (*before, *((f"batch{axis}" for axis in range(dots, 0, -1)) if ellipsis else ()), *behind)
