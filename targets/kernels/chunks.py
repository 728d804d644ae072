"""Sums of float16 products on CPUs that multiply float16: some are summed in float16, and those sums in float32.

An instruction that sums float16 into float32 (FMLAL) multiplies no more at a time than one of float32 does; one that sums into
float16 multiplies twice as many, and rounds each time. The error grows with the root of how many it sums: over the root mean
square of a layer's sums, with data behind a ReLU, it is 4e-4 for 16 products, 8e-4 for 64 and 1.0e-3 for 96. To store sums as
float16, as the model asks for, costs 2e-4. To add 64 of them to float32 takes a tenth of the instructions that summed them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    Tensor = Any  # tvm.te.Tensor
    Expression = Any
    At = Sequence[Expression]

LONGEST = 64  # products that are summed in float16
LANES = 8  # float16 in a register of aarch64


def divide(sizes: Sequence[int]) -> list[int]:
    """How much of each axis of a reduction a chunk has, outermost first: all of the inner ones, a part of one, then 1.

    The innermost one holds whole registers of data, and so does a chunk of it.
    """
    *outer, last = sizes
    whole = last // LANES if last % LANES == 0 else last
    step, room, taken = last // whole, LONGEST, []
    for size, unit in ((whole, step), *((size, 1) for size in reversed(outer))):
        room //= unit
        part = max(number for number in range(1, max(1, min(size, room)) + 1) if size % number == 0)
        taken.append(part * unit)
        room = room // part if part == size else 1
    return taken[::-1]


def total(shape: Sequence[int], sizes: Sequence[int], product: Callable[[At, At], Expression]) -> Tensor:
    """Stages "chunk", float16 [chunks along each axis of the reduction, *shape], and "accumulate", float32 of `shape`.

    :param sizes: of the reduction's axes; behind them stands one more of size 1, an instruction's group.
    :param product: float16, at a place of `shape` and indices of the reduction.
    """
    from tvm import te

    parts = divide(sizes)
    counts = [size // part for size, part in zip(sizes, parts, strict=True)]
    inside = [te.reduce_axis((0, size), f"k{index}") for index, size in enumerate([*parts, 1])]
    outside = [te.reduce_axis((0, size), f"chunk{index}") for index, size in enumerate(counts)]

    def chunk(*at: Expression) -> Expression:
        first, place = at[: len(sizes)], at[len(sizes) :]
        k = [number * part + axis for number, part, axis in zip(first, parts, inside[:-1], strict=True)]
        return te.sum(product(place, [*k, inside[-1]]), axis=inside)

    sums = te.compute((*counts, *shape), chunk, name="chunk")
    return te.compute(
        tuple(shape), lambda *at: te.sum(sums[(*outside, *at)].astype("float32"), axis=outside), name="accumulate"
    )
