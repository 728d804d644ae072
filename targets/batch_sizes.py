"""Batch sizes: which ones a bundle is compiled for, and how any number of samples is run with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from deburr.ir.errors import DeburrError
from deburr.ir.types import Array

MOST = 8  # sizes in one bundle: each is compiled by itself


def checked(batch: int | Sequence[int], where: str = "") -> tuple[int, ...]:
    """The sizes in ascending order.

    :param where: what an error calls the place; None for the argument itself.
    :raises DeburrError: E901 for a size below 1, a size given twice, none or too many.
    """
    sizes = tuple(batch) if isinstance(batch, Sequence) else (batch,)
    place = where or f"batch={batch!r}"
    for size in sizes:
        if not isinstance(size, int) or size < 1:
            raise _wrong("not a batch size", place, f"{size!r} is no whole number above 0")
    twice = next((size for size in sizes if sizes.count(size) > 1), None)
    if twice is not None:
        raise _wrong("a batch size is given twice", place, f"{twice} stands there {sizes.count(twice)} times")
    if not 1 <= len(sizes) <= MOST:
        raise _wrong(
            "too many batch sizes" if sizes else "no batch size", place, f"there are {len(sizes)}, a bundle takes 1 to {MOST}"
        )
    return tuple(sorted(sizes))


def parse(text: str) -> tuple[int, ...]:
    """The sizes that ``--batch`` lists, as "1,4,8".

    :raises DeburrError: E901.
    """
    words = [word.strip() for word in text.split(",")]
    strange = next((word for word in words if not (word.isascii() and word.isdecimal())), None)
    if strange is not None:
        raise _wrong("not a batch size", f"--batch {text}", f"{strange!r} is no whole number above 0")
    return checked([int(word) for word in words], f"--batch {text}")


def parts(count: int, sizes: Sequence[int]) -> Iterator[int]:
    """The batch sizes that run `count` samples one after the other, the largest first; the last may reach beyond them.

    :param sizes: in ascending order.
    """
    while count > 0:
        size = max((size for size in sizes if size <= count), default=sizes[0])
        yield size
        count -= size


def part(array: Array, start: int, size: int) -> Array:
    """`size` samples from `start` on; where the array ends before, its last sample is repeated."""
    found = array[start : start + size]
    missing = size - len(found)
    return np.concatenate([found, np.repeat(array[-1:], missing, axis=0)]) if missing else found


def _wrong(what: str, where: str, why: str) -> DeburrError:
    return DeburrError("E901", what, where=where, why=why, hint="give different sizes, as --batch 1,4,8 or batch=(1, 4, 8)")
