"""Rules for operators that keep every element in its place: elementwise ones broadcast and unite, pooling passes through."""

from __future__ import annotations

import numpy as np

from deburr.ir.node import Node
from deburr.ir.types import Shape
from deburr.ir.value import Value
from deburr.passes.analysis.box import varying
from deburr.passes.analysis.classes import ALWAYS, Ids
from deburr.passes.analysis.quantized import constant_behind, in_blocks, per_channel, why_not_sliced
from deburr.passes.analysis.sizes import settle, wanted_sizes
from deburr.passes.analysis.walk import DeclineError, Product, Walk, free, integers_of, shape_of


def unary(node: Node, walk: Walk) -> None:
    """One tensor, and perhaps scalars beside it."""
    for index, value in enumerate(node.inputs):
        if index and value is not None and any(dim != 1 for dim in shape_of(value)):
            raise DeclineError(f"its operand {value.name!r} is no scalar")
    if not node.input(0).is_constant:
        for value in node.outputs:
            if value is not None:
                walk.put(value, walk.of(node.input(0)))


def quantize(node: Node, walk: Walk) -> None:
    """One scale for the whole tensor, or one for each index of an axis, which goes with it. Weights are followed by their
    readers."""
    if constant_behind(node.output()) is not None:
        return
    ids = walk.of(node.input(0))
    if ids.size > 1:
        if in_blocks(node):
            raise DeclineError("it is quantized in blocks")
        axis, vectors = per_channel(node)
        if vectors and (reason := why_not_sliced(node)):
            raise DeclineError(reason)
        for operand in vectors if ids.shape[axis] > 1 else ():
            walk.slice(node, operand, 0, ids, "data", ids_axis=axis)
    walk.put(node.output(), ids)


def broadcast(node: Node, walk: Walk) -> None:
    """EQUAL along every axis that an operand really has; constants are sliced along with the axes that hold channels."""
    rank = len(shape_of(node.output()))
    operands = [value for value in node.inputs if value is not None and constant_behind(value) is None]
    for axis in range(rank):
        _widen(walk, operands, axis, rank)
    aligned = [(value, _align(walk.of(value).shape, rank), _align(shape_of(value), rank)) for value in operands]
    extent = [max([1, *(int(sizes[axis] or 1) for _, sizes, _ in aligned)]) for axis in range(rank)]
    united = [value for value, sizes, dims in aligned if not _is_spread(walk, value, sizes, dims, extent)]
    out = _unite(walk, united, extent) if united else np.full((1,) * rank, ALWAYS, np.int64)
    for index, value in enumerate(node.inputs):
        if value is not None and constant_behind(value) is not None:
            for axis, dim in enumerate(shape_of(value)):
                place = axis + rank - len(shape_of(value))
                if dim != 1 and extent[place] > 1:
                    walk.slice(node, index, axis, out, "data", ids_axis=place)
    walk.put(node.output(), out)


def _align(dims: Shape, rank: int) -> Shape:
    return (1,) * (rank - len(dims)) + tuple(dims)


def _widen(walk: Walk, operands: list[Value], axis: int, rank: int) -> None:
    """Where an operand with channels of its own repeats its single index of `axis`, the others lose nothing along it."""
    own = [value for value in operands if _align(shape_of(value), rank)[axis] == 1 and walk.of(value).size > 1]
    for value in operands if own else ():
        ids, place = walk.of(value), axis - rank + len(shape_of(value))
        if place >= 0 and ids.shape[place] > 1:
            walk.whole(ids, [place], f"{own[0].name!r} is broadcast against a tensor with channels on another axis")


def _is_spread(walk: Walk, value: Value, sizes: Shape, dims: Shape, extent: list[int]) -> bool:
    """Is a single element of the operand broadcast over an axis with channels?"""
    spread = [axis for axis, dim in enumerate(dims) if dim == 1 and extent[axis] > 1]
    if spread:
        walk.freeze(value, "a single channel is broadcast over others")
    return bool(spread)


def _unite(walk: Walk, values: list[Value], extent: list[int]) -> Ids:
    arrays = [
        walk.of(value).reshape([int(size or 1) for size in _align(walk.of(value).shape, len(extent))]) for value in values
    ]
    full = next((array for array in arrays if list(array.shape) == extent), np.broadcast_to(arrays[0], extent))
    for value, array in zip(values, arrays, strict=True):
        if not array.any():
            for other in values:
                walk.freeze(other, f"it meets {value.name!r}, which keeps all its channels")
        walk.classes.union(full, array)
    return full


def pool(node: Node, walk: Walk) -> None:
    """Axes 0 and 1 stay, the spatial axes must be free."""
    ids = walk.of(node.input(0))
    ids = walk.whole(ids, range(2, ids.ndim), "it pools over an axis that holds channels")
    if len(node.outputs) > 1 and ids.size > 1:
        raise DeclineError("its indices count through the channels")
    for value in node.outputs:
        if value is not None:
            walk.put(value, ids)


def softmax(node: Node, walk: Walk) -> None:
    """Free along its axis, or frozen. Before opset 13 it runs over all axes from `axis` on."""
    ids = walk.of(node.input(0))
    default = -1 if walk.opset >= 13 else 1
    axis = int(node.get("axis", default)) % ids.ndim
    ids = walk.whole(ids, [axis] if walk.opset >= 13 else range(axis, ids.ndim), "it normalizes over the channels")
    walk.put(node.output(), ids)


def top_k(node: Node, walk: Walk) -> None:
    """Free along its axis, or frozen."""
    ids = walk.of(node.input(0))
    if ids.shape[int(node.get("axis", -1)) % ids.ndim] > 1:
        raise DeclineError("it chooses among the channels")
    for value in node.outputs:
        if value is not None:
            walk.put(value, ids)


def reduce(node: Node, walk: Walk) -> None:
    """A reduction over free axes."""
    ids = walk.of(node.input(0))
    if node.optional_input(1) is not None:
        axes = integers_of(node, 1, "list of axes")
    else:
        given = node.get("axes", node.get("axis") if "axis" in node.attributes else None)
        axes = list(given) if isinstance(given, tuple) else [] if given is None else [int(given)]
    if node.op in ("ArgMax", "ArgMin") and not axes:
        axes = [0]
    if not axes and node.get("noop_with_empty_axes", 0):
        walk.put(node.output(), ids)
        return
    reduced = {axis % ids.ndim for axis in axes} or set(range(ids.ndim))
    if walk.options.lossy and node.op == "ReduceMean" and set(varying(ids)) <= reduced:
        if ids.any():
            walk.lossy[node] = "the mean runs over the channels that are left"
        ids = free(ids.ndim)
    ids = walk.whole(ids, sorted(reduced), "it reduces over the channels")
    walk.put(
        node.output(),
        ids if node.get("keepdims", 1) else ids.reshape([ids.shape[a] for a in range(ids.ndim) if a not in reduced]),
    )


def _is_other(wanted: Product | None, size: int) -> bool:
    return wanted is not None and not wanted.sizes and wanted.factor != size


def resize(node: Node, walk: Walk) -> None:
    """Axes with channels must keep their size: scale 1, or a size to regenerate."""
    ids = walk.of(node.input(0))
    scales, sizes = node.optional_input(2 if walk.opset >= 11 else 1), node.optional_input(3)
    carried = [axis for axis, size in enumerate(ids.shape) if size > 1]
    if (
        node.get("axes") is not None
        or node.get("coordinate_transformation_mode", "") == "tf_crop_and_resize"
        or (node.get("keep_aspect_ratio_policy", "stretch") != "stretch")
    ):
        raise DeclineError("this form of Resize is not followed")
    if scales is not None and scales.array is not None and scales.array.size:
        if any(float(scales.array.ravel()[axis]) != 1.0 for axis in carried):
            raise DeclineError("it scales an axis that holds channels")
    elif sizes is not None:
        wanted = wanted_sizes(node, 3, "size", walk)
        if any(_is_other(wanted[axis], ids.shape[axis]) for axis in carried):
            raise DeclineError("it scales an axis that holds channels")
        settle(node, 3, "sizes", ids, walk)
    else:
        raise DeclineError("its scale is not a constant")
    walk.put(node.output(), ids)
