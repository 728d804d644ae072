"""Sizes that a graph reads at run time: followed from Shape through Gather, Concat and products to the Reshape that uses them.

A small integer tensor is known element by element: numbers, products of the sizes of axes, or unknown. Sizes of free axes
(batch, space) may be used for anything. The size of an axis with channels shrinks by itself after the surgery, so it may only
become the size of an axis with the same channels; whatever else reads it freezes the channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from deburr.ir.node import Node
from deburr.ir.ops import facts, normal_domain
from deburr.ir.types import Dim
from deburr.ir.value import Value
from deburr.passes.analysis.classes import Ids
from deburr.passes.analysis.walk import DeclineError, Product, Size, Walk, integers_of, shape_of

_MOST = 64  # elements of a tensor that is followed
Elements = tuple[Product | None, ...]
Factors = int | tuple[Dim, ...]  # a wanted size: a number, or a product


def size_rule(node: Node, walk: Walk) -> Callable[[Node, Walk], None] | None:
    """The rule for a node that computes with sizes, or None for all others."""
    if normal_domain(node.domain) or not any(value in walk.sizes for value in node.inputs if value is not None):
        return None
    return _RULES.get(node.op)


def shape(node: Node, walk: Walk) -> None:
    """Each element is the size of an axis; a known size without channels is a number."""
    value = node.input(0)
    dims = shape_of(value)
    axes = range(len(dims))[node.get("start", 0) : node.get("end", None)]
    walk.sizes[node.output()] = tuple(_size(value, axis, walk) for axis in axes)


def _size(value: Value, axis: int, walk: Walk) -> Product:
    dim = shape_of(value)[axis]
    if isinstance(dim, int) and not walk.holds_channels(value, axis):
        return Product(dim)
    return Product(1, (Size(value, axis),))


def elements_of(value: Value, walk: Walk) -> Elements | None:
    """What is known of a small integer tensor, or None if not even its length."""
    if value.is_constant:
        array = value.array
        assert array is not None
        integers = array.dtype.kind in "iu" and array.size <= _MOST
        return tuple(Product(int(element)) for element in array.ravel()) if integers else None
    if value in walk.sizes:
        return walk.sizes[value]
    static = value.static_shape
    return None if static is None or math.prod(static) > _MOST else (None,) * math.prod(static)


def wanted_sizes(node: Node, index: int, what: str, walk: Walk) -> Elements:
    """The elements of the shape that input `index` asks for.

    :raises DeclineError: if there is none, or its length is unknown.
    """
    value = node.optional_input(index)
    elements = None if value is None else elements_of(value, walk)
    if elements is None or all(element is None for element in elements):
        raise DeclineError(f"its {what} is not a constant")
    return elements


def factors(elements: Elements, walk: Walk) -> list[Factors]:
    """Sizes as `runs_of` matches them; what is unknown is inferred, like -1."""
    return [
        -1 if element is None
        else element.factor if not element.sizes
        else (element.factor, *(dim_of(size.value, size.axis, walk) for size in element.sizes))
        for element in elements
    ]  # fmt: skip


def dim_of(value: Value, axis: int, walk: Walk) -> Dim:
    """A dim; an unknown one is named after the first value that has it, as elementwise operators pass it on."""
    dim = shape_of(value)[axis]
    if dim is not None:
        return dim
    while (source := _source(value, axis, walk)) is not None:
        value, axis = source.value, source.axis
    return f"{value.name}:{axis}"


def _source(value: Value, axis: int, walk: Walk) -> Size | None:
    """The axis that an axis of unknown size was made from, unchanged in length."""
    node = value.producer
    if node is None:
        return None
    if node.op == "Transpose" and node.get("perm"):
        return Size(node.input(0), int(node.get("perm")[axis]))
    if node.op == "Reshape":
        element = walk.sizes.get(node.input(1), (None,) * (axis + 1))[axis]
        return element.sizes[0] if element is not None and element.factor == 1 and len(element.sizes) == 1 else None
    return Size(node.input(0), axis) if _keeps_shape(node, walk) else None


def _keeps_shape(node: Node, walk: Walk) -> bool:
    if node.op == "BatchNormalization":
        return True
    known = facts(node, walk.opset)
    return bool(known.is_elementwise and known.is_layout_agnostic) and not node.input(0).is_constant


def settle(node: Node, index: int, kind: str, ids: Ids, walk: Walk) -> None:
    """Accept the sizes that input `index` gives to an output with classes `ids`, and note which must be regenerated.

    :param kind: how a constant is regenerated.

    :raises DeclineError: if a size would be wrong once channels are gone.
    """
    value, what = node.input(index), "shape"
    elements = wanted_sizes(node, index, what, walk)
    if value.is_constant:
        walk.regenerate(node, kind)
        return
    lead, numbers = ids.ndim - len(elements), []
    for place, element in enumerate(elements):
        channels = ids.shape[lead + place] > 1
        if element is not None and any(walk.holds_channels(size.value, size.axis) for size in element.sizes):
            one = element.factor == 1 and len(element.sizes) == 1
            if not (channels and one and _same(walk, element.sizes[0], ids, lead + place)):
                raise DeclineError(f"its {what} is computed from a number of channels")
        elif channels and (element is None or element.sizes):
            raise DeclineError(f"its {what} is computed")
        elif channels and element is not None and element.factor > 0:
            numbers.append(place)
    if any(place not in spelled_out(value) for place in numbers):
        raise DeclineError(f"a number in its {what} is also used elsewhere")
    walk.understand(value)
    if numbers:
        walk.regenerate(node, "computed")


def _same(walk: Walk, size: Size, ids: Ids, axis: int) -> bool:
    """Does `axis` of the class array lose as many indices as the axis whose size is read?"""
    source = walk.of(size.value)
    if any(length > 1 for at, length in enumerate(source.shape) if at != size.axis):
        return False
    if any(length > 1 for at, length in enumerate(ids.shape) if at != axis):
        return False
    return np.array_equal(np.sort(walk.classes.find(source).ravel()), np.sort(walk.classes.find(ids).ravel()))


def spelled_out(value: Value) -> dict[int, tuple[Node, int, int]]:
    """Which elements of a computed shape are constant operands of the Concat that makes it: the Concat, which of its inputs,
    and the place in that. Nothing where the Concat has other readers."""
    concat = value.producer
    if concat is None or concat.op != "Concat" or len(value.uses) != 1 or value.is_output:
        return {}
    found, place = {}, 0
    for number, piece in enumerate(concat.inputs):
        if piece is None or piece.static_shape is None:
            return {}
        length = math.prod(piece.static_shape)
        if piece.is_constant:
            found.update({place + offset: (concat, number, offset) for offset in range(length)})
        place += length
    return found


def _known(node: Node, index: int, walk: Walk) -> Elements:
    elements = elements_of(node.input(index), walk)
    if elements is None:
        raise DeclineError("the length of a computed shape is unknown")
    return elements


def _tell(node: Node, elements: Elements, walk: Walk) -> None:
    walk.sizes[node.output()] = elements
    for value in node.inputs:
        if value is not None:
            walk.understand(value)


def _same_elements(node: Node, walk: Walk) -> None:
    _tell(node, _known(node, 0, walk), walk)


def _gather(node: Node, walk: Walk) -> None:
    elements = _known(node, 0, walk)
    _tell(node, tuple(elements[index] for index in integers_of(node, 1, "list of indices")), walk)


def _slice(node: Node, walk: Walk) -> None:
    start, end = (integers_of(node, index, "list of bounds") for index in (1, 2))
    step = integers_of(node, 4, "list of steps") if node.optional_input(4) is not None else [1]
    _tell(node, _known(node, 0, walk)[start[0] : end[0] : step[0]], walk)


def _concat(node: Node, walk: Walk) -> None:
    _tell(node, tuple(element for index in range(len(node.inputs)) for element in _known(node, index, walk)), walk)


def _multiply(node: Node, walk: Walk) -> None:
    left, right = _known(node, 0, walk), _known(node, 1, walk)
    count = max(len(left), len(right))
    pairs = zip(left * (count // len(left)), right * (count // len(right)), strict=True)
    made = tuple(None if one is None or two is None else one * two for one, two in pairs)
    if any(element is None for element in made):
        raise DeclineError("its size is read at run time")
    _tell(node, made, walk)


_RULES: Mapping[str, Callable[[Node, Walk], None]] = MappingProxyType(
    {
        "Gather": _gather,
        "Slice": _slice,
        "Concat": _concat,
        "Mul": _multiply,
        **dict.fromkeys(("Identity", "Cast", "Squeeze", "Unsqueeze"), _same_elements),
    }
)
