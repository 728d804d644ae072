"""Rules for data movement: the operator is executed on the class array itself."""

from __future__ import annotations

import math

import numpy as np

from deburr.ir.node import Node
from deburr.ir.value import Value
from deburr.passes.analysis.classes import Ids
from deburr.passes.analysis.quantized import constant_behind
from deburr.passes.analysis.reshape import reshape_ids, runs_of
from deburr.passes.analysis.sizes import dim_of, factors, settle, wanted_sizes
from deburr.passes.analysis.walk import DeclineError, Walk, constant_of, integers_of, shape_of


def reshape(node: Node, walk: Walk) -> None:
    """The axes are matched in runs of equal size; only runs that hold channels are made real."""
    ids, dims = walk.of(node.input(0)), shape_of(node.input(0))
    if ids.size > 1:
        wanted = factors(wanted_sizes(node, 1, "shape", walk), walk)
        named = dims if node.input(1).is_constant else tuple(dim_of(node.input(0), axis, walk) for axis in range(len(dims)))
        made = reshape_ids(walk, ids, dims, runs_of(named, wanted, allow_zero=bool(node.get("allowzero", 0))))
        settle(node, 1, "shape", made, walk)
        walk.put(node.output(), made)


def flatten(node: Node, walk: Walk) -> None:
    """All axes before `axis` become one, all others the second."""
    ids, dims = walk.of(node.input(0)), shape_of(node.input(0))
    axis = int(node.get("axis", 1))
    axis += len(dims) if axis < 0 else 0
    sizes = [dim if isinstance(dim, int) else 1 for dim in dims]
    runs = [(axes, [math.prod(sizes[at] for at in axes)]) for axes in (range(axis), range(axis, len(dims)))]
    walk.put(node.output(), reshape_ids(walk, ids, dims, runs))


def transpose(node: Node, walk: Walk) -> None:
    ids = walk.of(node.input(0))
    walk.put(node.output(), ids.transpose(node.get("perm") or tuple(reversed(range(ids.ndim)))))


def squeeze(node: Node, walk: Walk) -> None:
    """Takes away axes of size 1, which are free."""
    ids, dims = walk.of(node.input(0)), shape_of(node.input(0))
    axes = _axes(node, walk)
    if axes is None and not all(isinstance(dim, int) for dim in dims):
        raise DeclineError("which axes it takes away is unknown")
    gone = [axis for axis, dim in enumerate(dims) if dim == 1] if axes is None else [axis % len(dims) for axis in axes]
    walk.put(node.output(), ids.squeeze(tuple(gone)))


def unsqueeze(node: Node, walk: Walk) -> None:
    ids, axes = walk.of(node.input(0)), _axes(node, walk) or []
    rank = ids.ndim + len(axes)
    walk.put(node.output(), np.expand_dims(ids, tuple(axis % rank for axis in axes)))


def _axes(node: Node, walk: Walk) -> list[int] | None:
    if node.optional_input(1) is not None:
        return integers_of(node, 1, "list of axes")
    given = node.get("axes")
    return None if given is None else [int(axis) for axis in given]


def concat(node: Node, walk: Walk) -> None:
    """Class arrays side by side; along the other axes the pieces must agree. Constants have fresh classes, or follow."""
    axis = int(node.get("axis")) % len(shape_of(node.output()))
    pieces = [value for value in node.inputs if value is not None]
    arrays = [walk.of(piece) for piece in pieces]
    if all(array.size == 1 and not array.any() for array in arrays):
        return
    constant = [constant_behind(piece) is not None for piece in pieces]
    moving = [array for array, fixed in zip(arrays, constant, strict=True) if not fixed]
    straight = [array for array in moving if array.shape[axis] == 1]
    for array in straight[1:]:
        walk.classes.union(straight[0], array)
    if len(straight) == len(moving) and any(array.size > 1 for array in moving):
        # Pieces that keep all their channels hold the others to that.
        out = np.broadcast_to(max(moving, key=np.size), np.broadcast_shapes(*(array.shape for array in moving)))
        _follow(node, walk, [out if fixed else None for fixed in constant])
        walk.put(node.output(), out)
        if any(array.size == 1 for array in moving):
            walk.freeze(node.output(), "it joins them with a tensor that keeps all its channels", node)
        return
    for index in (index for index, fixed in enumerate(constant) if fixed):
        length = int(shape_of(pieces[index])[axis] or 1)
        if length > 1:  # what is a single index stays
            arrays[index] = walk.fresh(length).reshape([length if place == axis else 1 for place in range(arrays[0].ndim)])
    dims = [dim for dim in (shape_of(piece)[axis] for piece in pieces) if isinstance(dim, int)]
    if len(dims) != len(pieces):
        raise DeclineError("it joins along an axis of unknown size")
    other = [max(array.shape[place] for array in arrays) for place in range(arrays[0].ndim)]
    shaped = [
        np.broadcast_to(array, [dim if place == axis else other[place] for place in range(array.ndim)])
        for array, dim in zip(arrays, dims, strict=True)
    ]
    _follow(node, walk, [array if fixed else None for array, fixed in zip(shaped, constant, strict=True)])
    walk.put(node.output(), np.concatenate(shaped, axis))


def _follow(node: Node, walk: Walk, arrays: list[Ids | None]) -> None:
    """Constant operands are sliced as their class arrays say."""
    for index, ids in enumerate(arrays):
        for axis, dim in enumerate(shape_of(node.input(index)) if ids is not None else ()):
            if ids is not None and ids.shape[axis] > 1 and dim != 1:
                walk.slice(node, index, axis, ids, "output", ids_axis=axis)


def split(node: Node, walk: Walk) -> None:
    ids, pieces = walk.of(node.input(0)), [value for value in node.outputs if value is not None]
    axis = int(node.get("axis", 0)) % ids.ndim
    if ids.shape[axis] == 1:
        for piece in pieces:
            walk.put(piece, ids)
        return
    sizes = split_sizes(node, ids.shape[axis])
    if node.optional_input(1) is not None:
        constant_of(node, 1, "list of sizes")
    bounds = np.cumsum([0, *sizes])
    for index, value in enumerate(node.outputs):
        if value is not None:
            walk.put(value, ids.take(range(bounds[index], bounds[index + 1]), axis))
    walk.regenerate(node, "split")


def split_sizes(node: Node, length: int) -> list[int]:
    """The sizes along the axis: given, or equal but for a smaller last one."""
    given = node.optional_input(1)
    if given is not None and given.array is not None:
        return [int(size) for size in given.array.ravel()]
    if node.get("split") is not None:
        return [int(size) for size in node.get("split")]
    count = len(node.outputs)
    chunk = -(-length // count)
    return [max(0, min(chunk, length - index * chunk)) for index in range(count)]


def slice_(node: Node, walk: Walk) -> None:
    """Constant bounds along axes with channels; with steps, the surgery gathers what is left."""
    ids = walk.of(node.input(0))
    if walk.opset < 10 and ids.size > 1:
        raise DeclineError("the Slice of an opset before 10 is not followed")
    for axis, taken in slice_ranges(node, ids) if ids.size > 1 else ():
        ids = ids.take(taken, axis)
        walk.regenerate(node, "bounds")
    walk.put(node.output(), ids)


def slice_ranges(node: Node, ids: Ids) -> list[tuple[int, range]]:
    """Which indices are taken of every sliced axis that holds channels.

    :raises DeclineError: if its bounds are computed, or nothing is taken.
    """
    starts = node.input(1).static_shape
    if starts is None:
        raise DeclineError("how many axes it cuts is unknown")
    axes = integers_of(node, 3, "list of axes") if node.optional_input(3) is not None else list(range(starts[0]))
    if all(ids.shape[axis % ids.ndim] == 1 for axis in axes):
        return []  # free axes may be cut anywhere, also where it is computed
    first_of, last_of = integers_of(node, 1, "list of starts"), integers_of(node, 2, "list of ends")
    steps = integers_of(node, 4, "list of steps") if node.optional_input(4) is not None else [1] * len(axes)
    ranges = []
    for axis, start, end, step in zip(axes, first_of, last_of, steps, strict=True):
        size = ids.shape[axis % ids.ndim]
        if size > 1:
            taken = range(*slice(start, max(end, -size - 1) if step < 0 else end, step).indices(size))
            if not taken:
                raise DeclineError("it takes nothing")
            ranges.append((axis % ids.ndim, taken))
    return ranges


def gather(node: Node, walk: Walk) -> None:
    """Constant indices along an axis with channels; any indices along a free one."""
    ids = walk.of(node.input(0))
    axis = int(node.get("axis", 0)) % ids.ndim
    indices = node.input(1)
    if ids.shape[axis] == 1:
        rank = len(shape_of(indices))
        walk.put(node.output(), ids.reshape(ids.shape[:axis] + (1,) * rank + ids.shape[axis + 1 :]))
        return
    chosen = np.array(integers_of(node, 1, "list of indices"), np.int64).reshape([int(dim or 0) for dim in shape_of(indices)])
    if chosen.ndim > 1:
        raise DeclineError("it picks channels by a matrix of indices")
    walk.regenerate(node, "indices")
    walk.put(node.output(), ids.take(chosen % ids.shape[axis], axis))


def tile(node: Node, walk: Walk) -> None:
    """Channels that are repeated go together; free axes may be repeated as often as it is computed."""
    ids = walk.of(node.input(0))
    carried = [axis for axis, size in enumerate(ids.shape) if size > 1]
    if carried:
        repeats = wanted_sizes(node, 1, "list of repeats", walk)
        for axis in carried:
            times = repeats[axis]
            if times is None or times.sizes:
                raise DeclineError("how often it repeats the channels is computed")
            ids = ids.take([*range(ids.shape[axis])] * times.factor, axis)
    walk.put(node.output(), ids)


def pad(node: Node, walk: Walk) -> None:
    """Axes with channels must not be padded."""
    ids = walk.of(node.input(0))
    rank = ids.ndim
    given = node.get("pads")
    pads = integers_of(node, 1, "padding") if given is None else [int(size) for size in given]
    axes = integers_of(node, 3, "list of axes") if node.optional_input(3) is not None else list(range(rank))
    for axis, before, after in zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True):
        if ids.shape[axis % rank] > 1 and (before or after):
            raise DeclineError("it pads an axis that holds channels")
    walk.put(node.output(), ids)


def expand(node: Node, walk: Walk) -> None:
    """New axes and repeated single elements are free; an axis with channels is spelled 1 in the shape."""
    ids = walk.of(node.input(0))
    made = ids.reshape((1,) * (len(shape_of(node.output())) - ids.ndim) + ids.shape)
    if ids.size > 1:
        settle(node, 1, "expand", made, walk)
    walk.put(node.output(), made)


def depth_to_space(node: Node, walk: Walk) -> None:
    """Each output channel is made of blocksize² input channels, which go together."""
    block, value = int(node.get("blocksize")), node.input(0)
    ids = walk.vector(value, 1, _channels(value))
    if ids.any():
        rows = ids.reshape(-1, block * block) if node.get("mode", "DCR") == "CRD" else ids.reshape(block * block, -1).T
        walk.classes.union(rows, rows[:, :1])
        ids = rows[:, 0]
    walk.put_axis(node.output(), 1, ids)


def space_to_depth(node: Node, walk: Walk) -> None:
    """Every input channel becomes blocksize² output channels, block position first."""
    block, value = int(node.get("blocksize")), node.input(0)
    walk.put_axis(node.output(), 1, np.tile(walk.vector(value, 1, _channels(value)), block * block))


def _channels(value: Value) -> int:
    dim = shape_of(value)[1]
    if not isinstance(dim, int):
        raise DeclineError("the number of its channels is unknown")
    return dim
