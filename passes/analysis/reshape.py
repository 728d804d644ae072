"""Reshape on class arrays: axes in runs of equal size, so that batch and space stay free unless channels mix with them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from deburr.ir.types import Dim, Shape
from deburr.passes.analysis.classes import Ids
from deburr.passes.analysis.walk import DeclineError, Walk

Run = tuple[range, list[int]]  # input axes that become output axes of these sizes

# Stand-ins for unknown sizes: primes, so that products only agree where the same unknowns were grouped.
_PRIMES = (1_000_003, 1_000_033, 1_000_037, 1_000_039, 1_000_081, 1_000_099, 1_000_117, 1_000_121)


def runs_of(dims: Shape, wanted: Sequence[int | tuple[Dim, ...]], *, allow_zero: bool = False) -> list[Run]:
    """Which axes of `dims` become which axes of what a Reshape's shape input asks for (0 copies, -1 is inferred, a tuple is a
    product).

    :raises DeclineError: if the sizes do not match up.
    """
    target = [dims[axis] if size == 0 and not allow_zero and axis < len(dims) else size for axis, size in enumerate(wanted)]
    given, made = _stand_ins(dims, target)
    if 0 in given or 0 in made:
        raise DeclineError("a tensor without elements")
    if made.count(-1) > 1:
        raise DeclineError("more than one of the sizes is unknown")
    if -1 in made:
        rest = math.prod(size for size in made if size != -1)
        made[made.index(-1)] = math.prod(given) // rest
    if math.prod(given) != math.prod(made):
        raise DeclineError("the sizes before and after do not match up")
    return _match(given, made)


def reshape_ids(walk: Walk, ids: Ids, dims: Shape, runs: Sequence[Run]) -> Ids:
    """The class array after the axes of `dims` were reshaped run by run.

    Where one axis of channels is split into several, what comes out must lose whole slices: the classes are united along
    all of them but the longest that varies.

    :raises DeclineError: if channels mix with an axis of unknown size.
    """
    position = 0
    for axes, sizes in runs:
        lead, own, tail = ids.shape[:position], ids.shape[position : position + len(axes)], ids.shape[position + len(axes) :]
        if all(size == 1 for size in own):
            ids = ids.reshape((*lead, *[1] * len(sizes), *tail))
        elif len(axes) > 1 or len(sizes) > 1:
            real = [dim for dim in (dims[axis] for axis in axes) if isinstance(dim, int)]
            if len(real) != len(axes):
                raise DeclineError("channels mix with an axis of unknown size")
            ids = np.broadcast_to(ids, (*lead, *real, *tail)).reshape((*lead, *sizes, *tail))
            ids = _tie(walk, ids, range(position, position + len(sizes)))
        position += len(sizes)
    return ids


def _tie(walk: Walk, ids: Ids, axes: range) -> Ids:
    """Free the axes along which nothing varies, and unite along all others but the longest."""
    ids = _loosen(walk, ids, axes)
    varying = sorted((axis for axis in axes if ids.shape[axis] > 1), key=lambda axis: (ids.shape[axis], axis))
    for axis in varying[:-1]:
        first = ids.take([0], axis)
        walk.classes.union(ids, first)
        ids = first
    return ids


def _loosen(walk: Walk, ids: Ids, axes: range) -> Ids:
    roots = walk.classes.find(ids)
    for axis in axes:
        first = roots.take([0], axis)
        if np.array_equal(np.broadcast_to(first, roots.shape), roots):
            roots = first
    return roots


def _stand_ins(dims: Shape, target: Sequence[Dim | tuple[Dim, ...]]) -> tuple[list[int], list[int]]:
    known: dict[str, int] = {}
    primes = iter(_PRIMES)

    def size(dim: Dim) -> int:
        if isinstance(dim, int):
            return dim
        try:
            return next(primes) if dim is None else known.setdefault(dim, next(primes))
        except StopIteration:
            raise DeclineError("too many axes of unknown size") from None

    given = [size(dim) for dim in dims]
    return given, [math.prod(map(size, dim)) if isinstance(dim, tuple) else size(dim) for dim in target]


def _match(given: list[int], made: list[int]) -> list[Run]:
    runs: list[Run] = []
    left = right = 0
    while left < len(given) and right < len(made):
        first, start, product, goal = left, right, given[left], made[right]
        left, right = left + 1, right + 1
        while product != goal:
            if product < goal:
                product, left = product * given[left], left + 1
            else:
                goal, right = goal * made[right], right + 1
        runs.append((range(first, left), made[start:right]))
    if left < len(given) or right < len(made):  # nothing but ones
        runs.append((range(left, len(given)), made[right:]))
    return runs
