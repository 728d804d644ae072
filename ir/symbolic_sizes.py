"""Arithmetic of sizes: a size is a number times symbols ("batch", "64*batch"), and small integer tensors hold sizes.

ONNX's data propagation stops at a size that is inferred (-1) from a symbol, at Where, and at Expand; this does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from deburr.ir.node import Node
from deburr.ir.types import Dim, DType, Shape
from deburr.ir.value import Value

Elements = tuple[Dim, ...]  # what is known of an integer tensor: numbers, sizes, None for unknown

MOST = 64  # elements of a tensor that is followed
_INTEGERS = (DType.INT64, DType.INT32, DType.BOOL)


class Sizes:
    """What is known of the small integer tensors of a graph, told node by node in order."""

    def __init__(self) -> None:
        self._known: dict[Value, Elements] = {}

    def of(self, value: Value | None) -> Elements | None:
        """The elements of a tensor, or None if not even their number is known."""
        if value is None:
            return None
        if value.is_constant:
            array = value.array if value.dtype in _INTEGERS and _is_small(value.static_shape) else None
            return None if array is None else tuple(int(element) for element in array.ravel())
        if value in self._known:
            return self._known[value]
        shape = value.static_shape
        return (None,) * math.prod(shape) if value.dtype in _INTEGERS and shape is not None and _is_small(shape) else None

    def visit(self, node: Node) -> None:
        rule = _RULES.get(node.op) if not node.domain or node.domain == "ai.onnx" else None
        made = rule(node, self) if rule is not None else None
        output = node.outputs[0] if node.outputs else None
        if output is not None and output.dtype in _INTEGERS and made is not None and len(made) <= MOST:
            self._known[output] = made


def _is_small(shape: tuple[int, ...] | None) -> bool:
    return shape is not None and math.prod(shape) <= MOST


def product(dims: Sequence[Dim]) -> Dim:
    """One size for several; None where one is unknown."""
    factor, symbols = 1, []
    for dim in dims:
        if dim is None:
            return None
        number, names = _parts(dim)
        factor *= number
        symbols += names
    return _spell(factor, symbols)


def quotient(whole: Dim, part: Dim) -> Dim:
    """The size that gives `whole` when multiplied with `part`, or None where that is no single size."""
    if whole is None or part is None or part == 0:
        return None
    (factor, symbols), (divisor, gone) = _parts(whole), _parts(part)
    left = list(symbols)
    for name in gone:
        if name not in left:
            return None
        left.remove(name)
    return None if factor % divisor else _spell(factor // divisor, left)


def _parts(dim: int | str) -> tuple[int, list[str]]:
    if isinstance(dim, int):
        return dim, []
    first, *names = dim.split("*")
    return (int(first), names) if first.isdecimal() else (1, [first, *names])


def _spell(factor: int, symbols: Sequence[str]) -> Dim:
    if not symbols or not factor:
        return factor
    return "*".join([*([str(factor)] if factor != 1 else []), *sorted(symbols)])


def reshaped(shape: Shape, wanted: Elements, *, allow_zero: bool) -> Shape:
    """The shape that Reshape makes: 0 copies a size, -1 takes what is left."""
    made = [
        shape[axis] if size == 0 and not allow_zero and axis < len(shape) else size for axis, size in enumerate(wanted)
    ]  # fmt: skip
    if -1 in made:
        made[made.index(-1)] = quotient(product(shape), product([size for size in made if size != -1]))
    return tuple(None if isinstance(size, int) and size < 0 else size for size in made)


def broadcast(one: Sequence[Dim], other: Sequence[Dim]) -> Shape:
    """The shape that two shapes are broadcast to."""
    rank = max(len(one), len(other))
    left, right = ((1,) * (rank - len(dims)) + tuple(dims) for dims in (one, other))
    return tuple(
        b
        if a == 1
        else a
        if b in (1, a)
        else a
        if isinstance(a, int) and a > 1
        else b
        if isinstance(b, int) and b > 1
        else None
        for a, b in zip(left, right, strict=True)
    )


def _shape(node: Node, sizes: Sizes) -> Elements | None:
    shape = node.input(0).shape
    return None if shape is None else shape[node.get("start", 0) : node.get("end")]


def _same(node: Node, sizes: Sizes) -> Elements | None:
    return sizes.of(node.input(0))


def _cast(node: Node, sizes: Sizes) -> Elements | None:
    return None if node.output().dtype is DType.BOOL else sizes.of(node.input(0))


def _gather(node: Node, sizes: Sizes) -> Elements | None:
    elements, indices = sizes.of(node.input(0)), sizes.of(node.input(1))
    if elements is None or indices is None or len(node.input(0).shape or ()) != 1:
        return None
    inside = all(isinstance(index, int) and -len(elements) <= index < len(elements) for index in indices)
    return tuple(elements[index] for index in indices if isinstance(index, int)) if inside else None


def _slice(node: Node, sizes: Sizes) -> Elements | None:
    elements = sizes.of(node.input(0))
    bounds = [sizes.of(node.optional_input(index)) for index in (1, 2)]
    steps = sizes.of(node.optional_input(4)) if node.optional_input(4) is not None else (1,)
    if elements is None or steps is None or len(node.input(0).shape or ()) != 1:
        return None
    numbers = [bound[0] for bound in (*bounds, steps) if bound is not None and len(bound) == 1]
    known = [number for number in numbers if isinstance(number, int)]
    return elements[known[0] : known[1] : known[2]] if len(known) == 3 else None


def _concat(node: Node, sizes: Sizes) -> Elements | None:
    pieces = [sizes.of(value) for value in node.inputs]
    if any(piece is None for piece in pieces) or len(node.output().shape or ()) != 1:
        return None
    return tuple(element for piece in pieces for element in piece or ())


def _pairs(node: Node, sizes: Sizes, combine: Callable[[Dim, Dim], Dim]) -> Elements | None:
    left, right = sizes.of(node.input(0)), sizes.of(node.input(1))
    if left is None or right is None or (len(left) != len(right) and 1 not in (len(left), len(right))):
        return None
    count = max(len(left), len(right)) if left and right else 0
    pairs = zip(left * (count // len(left) if left else 0), right * (count // len(right) if right else 0), strict=True)
    return tuple(combine(one, other) for one, other in pairs)


def _multiply(node: Node, sizes: Sizes) -> Elements | None:
    return _pairs(node, sizes, lambda one, other: product([one, other]))


def _divide(node: Node, sizes: Sizes) -> Elements | None:
    return _pairs(node, sizes, _divided)


def _divided(one: Dim, other: Dim) -> Dim:
    exact = quotient(one, other)
    if exact is None and isinstance(one, int) and isinstance(other, int) and one >= 0 and other > 0:
        return one // other
    return exact


def _add(node: Node, sizes: Sizes) -> Elements | None:
    return _pairs(node, sizes, lambda one, other: _sum(one, other, 1))


def _subtract(node: Node, sizes: Sizes) -> Elements | None:
    return _pairs(node, sizes, lambda one, other: _sum(one, other, -1))


def _sum(one: Dim, other: Dim, sign: int) -> Dim:
    if isinstance(one, int) and isinstance(other, int):
        return one + sign * other
    return one if other == 0 else None


def _equal(node: Node, sizes: Sizes) -> Elements | None:
    return _pairs(node, sizes, _are_equal)


def _are_equal(one: Dim, other: Dim) -> Dim:
    """1 or 0 where that is certain: a size is never negative."""
    if (isinstance(one, int) and isinstance(other, int)) or (one == other and one is not None):
        return int(one == other)
    return 0 if any(isinstance(dim, int) and dim < 0 for dim in (one, other)) and None not in (one, other) else None


def _where(node: Node, sizes: Sizes) -> Elements | None:
    condition, left, right = (sizes.of(node.input(index)) for index in range(3))
    if condition is None or left is None or right is None:
        return None
    count = max(len(condition), len(left), len(right))
    if any(len(operand) not in (1, count) for operand in (condition, left, right)):
        return None
    triples = zip(*(operand * (count // len(operand)) for operand in (condition, left, right)), strict=True)
    return tuple(None if chosen is None else one if chosen else other for chosen, one, other in triples)


def _constant_of_shape(node: Node, sizes: Sizes) -> Elements | None:
    length, value = sizes.of(node.input(0)), node.get("value")
    if length is None or len(length) != 1 or not isinstance(length[0], int) or not 0 <= length[0] <= MOST or value is None:
        return None
    return (int(value.array.ravel()[0]),) * length[0] if value.dtype in _INTEGERS else None


_RULES: Mapping[str, Callable[[Node, Sizes], Elements | None]] = MappingProxyType(
    {
        "Cast": _cast,
        "Shape": _shape, "Gather": _gather, "Slice": _slice, "Concat": _concat, "Mul": _multiply, "Div": _divide, "Add": _add,
        "Sub": _subtract, "Equal": _equal, "Where": _where, "ConstantOfShape": _constant_of_shape,
        **dict.fromkeys(("Identity", "Squeeze", "Unsqueeze", "Reshape"), _same),
    }
)  # fmt: skip
