"""Reshape on class arrays: axes in runs of equal size, so that batch and space stay free unless channels mix with them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from deburr.ir.types import Dim, Shape
from deburr.passes.analysis.box import loosen, settle
from deburr.passes.analysis.classes import Ids
from deburr.passes.analysis.walk import DeclineError, Walk

Run = tuple[range, list[int]]  # input axes that become output axes of these sizes

# Stand-ins for unknown sizes: primes, so that products only agree where the same unknowns were grouped.
_PRIMES = (1_000_003, 1_000_033, 1_000_037, 1_000_039, 1_000_081, 1_000_099, 1_000_117, 1_000_121)

_LARGE = 1 << 22  # elements of a class array that is not worth its memory


def runs_of(dims: Shape, wanted: Sequence[int | tuple[Dim, ...]], *, allow_zero: bool = False) -> list[Run]:
    """Which axes of `dims` become which axes of what a Reshape's shape input asks for (0 copies, -1 is inferred, a tuple is a
    product).

    :raises DeclineError: if the sizes do not match up.
    """
    target: list[Dim | tuple[Dim, ...]] = [
        dims[axis] if size == 0 and not allow_zero and axis < len(dims) else size for axis, size in enumerate(wanted)
    ]
    if math.prod(size if isinstance(size, int) else 0 for size in target) == math.prod(d for d in dims if isinstance(d, int)):
        dims = tuple(dim if isinstance(dim, int) else 1 for dim in dims)  # the known sizes are all there is
    given, made = _stand_ins(dims, target)
    if 0 in given or 0 in made:
        raise DeclineError("a tensor without elements")
    if made.count(-1) > 1:
        raise DeclineError("more than one of the sizes is unknown")
    if -1 in made:
        rest = math.prod(size for size in made if size != -1)
        if math.prod(given) % rest:  # of an unknown size only the reshape itself knows that it divides
            return _match_ends(given, made)
        made[made.index(-1)] = math.prod(given) // rest
    if math.prod(given) != math.prod(made):
        raise DeclineError("the sizes before and after do not match up")
    return _match(given, made)


def reshape_ids(walk: Walk, ids: Ids, dims: Shape, runs: Sequence[Run]) -> Ids:
    """The class array after the axes of `dims` were reshaped run by run.

    Where one axis of channels is split into several, each element keeps its class: readers, or in the end `box.settle`, say
    along which of them whole slices go. Only arrays that grow very large are settled at once.

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
            if math.prod((*lead, *real, *tail)) > _LARGE:
                ids = settle(walk.classes, ids)
                lead, tail = ids.shape[:position], ids.shape[position + len(axes) :]
            ids = np.broadcast_to(ids, (*lead, *real, *tail)).reshape((*lead, *sizes, *tail))
        position += len(sizes)
    return loosen(walk.classes, ids)


def _stand_ins(dims: Shape, target: Sequence[Dim | tuple[Dim, ...]]) -> tuple[list[int], list[int]]:
    known: dict[str, int] = {}
    primes = iter(_PRIMES)

    def size(dim: Dim) -> int:
        if isinstance(dim, int):
            return dim
        if dim is not None and "*" in dim:  # a product, as `deburr.ir.symbolic_sizes` spells it
            return math.prod(int(part) if part.isdecimal() else size(part) for part in dim.split("*"))
        try:
            return next(primes) if dim is None else known.setdefault(dim, next(primes))
        except StopIteration:
            raise DeclineError("too many axes of unknown size") from None

    given = [size(dim) for dim in dims]
    return given, [math.prod(map(size, dim)) if isinstance(dim, tuple) else size(dim) for dim in target]


def _match_ends(given: list[int], made: list[int]) -> list[Run]:
    """Runs from both ends up to the inferred size, and one run of what is left between them."""
    inferred = made.index(-1)
    before = _prefix(given, made[:inferred])
    behind = _prefix(given[::-1], made[:inferred:-1])
    start, first = (sum(sizes) for sizes in zip((0, 0), *before, strict=True))
    left, right = (sum(sizes) for sizes in zip((0, 0), *behind, strict=True))
    if start + left >= len(given):
        raise DeclineError("the sizes before and after do not match up")
    counts = [*before, (len(given) - start - left, len(made) - first - right), *reversed(behind)]
    runs: list[Run] = []
    at = place = 0
    for used, written in counts:
        runs.append((range(at, at + used), made[place : place + written]))
        at, place = at + used, place + written
    return runs


def _prefix(given: list[int], made: list[int]) -> list[tuple[int, int]]:
    """How many axes of each make up the runs from the start that are complete."""
    runs = []
    start = first = 0
    for last in range(1, len(made) + 1):
        goal, end = math.prod(made[first:last]), start
        while end < len(given) and (end == start or math.prod(given[start:end]) < goal):
            end += 1
        if end > start and math.prod(given[start:end]) == goal:
            runs.append((end - start, last - first))
            start, first = end, last
    return runs


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
