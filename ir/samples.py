"""Samples for calibration and evaluation: an .npz with an array per model input, samples on the first axis.

Samples of several sizes come as a folder of such files, one for each size.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deburr.ir.errors import DeburrError
from deburr.ir.graph import Graph
from deburr.ir.stored_array import StoredArray, head, rows
from deburr.ir.types import Array
from deburr.ir.value import Value

Inputs = Mapping[str, "Array | StoredArray"]
_CHUNK = 2**24  # bytes that are looked at at once


@dataclass(frozen=True, eq=False)
class Samples:
    """`inputs[name]` has shape [samples, …] as the model input `name` without its batch axis; `labels` [samples] or None.

    `others` are further samples, in other sizes. Arrays may lie in files: `batches` reads what it gives. `synthetic` is True
    where the user asked for random data in place of real samples: every report says so.
    """

    inputs: Inputs
    labels: Array | None = None
    source: str = "memory"
    synthetic: bool = False
    others: tuple[Inputs, ...] = ()

    @property
    def parts(self) -> tuple[Inputs, ...]:
        """Samples of one size each."""
        return (self.inputs, *self.others)

    def __len__(self) -> int:
        return sum(_count(part) for part in self.parts)

    def batches(self, size: int) -> Iterator[dict[str, Array]]:
        """Consecutive batches of at most `size` samples; those of one batch are equal in size.

        :raises DeburrError: E301 where a file can no longer be read.
        """
        with _reading(self.source):
            for part in self.parts:
                count = _count(part)
                columns = {name: rows(head(array, count), size) for name, array in part.items()}
                for _ in range(0, count, size):  # no zip: it would hold a batch while the next is read
                    yield {name: next(column) for name, column in columns.items()}

    def batch_count(self, size: int) -> int:
        """How many batches `batches` gives."""
        return sum(-(-_count(part) // size) for part in self.parts)

    def take(self, count: int) -> Samples:
        """The first `count` samples."""
        labels = None if self.labels is None else self.labels[:count]
        parts: list[Inputs] = []
        for part in self.parts:
            wanted = min(count, _count(part))
            if wanted or not parts:
                parts.append({name: head(array, wanted) for name, array in part.items()})
            count -= wanted
        return Samples(parts[0], labels, self.source, self.synthetic, tuple(parts[1:]))

    def largest(self) -> Samples:
        """One sample of the largest size."""
        part = max(self.parts, key=lambda part: sum(math.prod(array.shape[1:]) for array in part.values()))
        return Samples(part, None, self.source, self.synthetic).take(1)

    def split(self, share: float, random: np.random.Generator) -> tuple[Samples, Samples]:
        """A random `share` of the samples, at least one, and the others; both in the order that they had.

        :raises DeburrError: E305 if one of the two would be empty.
        """
        count = max(1, round(share * len(self)))
        if count >= len(self):
            raise DeburrError("E305", "too few samples to keep some apart", where=self.source, why=f"there are {len(self)}")
        chosen = np.zeros(len(self), bool)
        chosen[random.choice(len(self), count, replace=False)] = True
        return self._where(chosen), self._where(~chosen)

    def _where(self, chosen: Array) -> Samples:
        """Those that are chosen, in memory."""
        labels, parts, start = None if self.labels is None else self.labels[chosen], list[Inputs](), 0
        with _reading(self.source):
            for part in self.parts:
                count = _count(part)
                here = chosen[start : start + count]
                start += count
                if here.any():
                    parts.append({name: np.asarray(head(array, count))[here] for name, array in part.items()})
        return Samples(parts[0], labels, self.source, self.synthetic, tuple(parts[1:]))


def load_samples(path: str | Path, graph: Graph) -> Samples:
    """Open an .npz, or every .npz of a folder in the order of their names, and check it against the inputs of `graph`.

    :raises DeburrError: E301 unreadable (pickled arrays are refused), E302 missing or unknown names, E303 shape or dtype,
        E304 NaN or infinity, E305 no samples.
    """
    if not Path(path).is_dir():
        return _load_file(Path(path), graph)
    files = sorted(Path(path).glob("*.npz"))
    if not files:
        raise DeburrError("E305", "no samples", where=str(path), why="the folder holds no .npz")
    return join([_load_file(file, graph) for file in files], str(path))


def join(samples: Sequence[Samples], source: str) -> Samples:
    """All of them, in order.

    :raises DeburrError: E303 where some have labels and others have none, E305 for none at all.
    """
    if not samples:
        raise DeburrError("E305", "no samples", where=source)
    labels = [one.labels for one in samples if one.labels is not None]
    if labels and len(labels) < len(samples):
        raise DeburrError("E303", "labels are missing", where=source, why=f"{len(samples) - len(labels)} parts have none")
    parts = [part for one in samples for part in one.parts]
    return Samples(parts[0], np.concatenate(labels) if labels else None, source, others=tuple(parts[1:]))


def _load_file(path: Path, graph: Graph) -> Samples:
    with _reading(str(path)), zipfile.ZipFile(path) as archive:
        arrays = {name.removesuffix(".npy"): StoredArray.open(archive, path, name) for name in archive.namelist()}
    labels = arrays.pop("labels", None) if not any(value.name == "labels" for value in graph.inputs) else None
    with _reading(str(path)):
        return check_samples(arrays, graph, labels=None if labels is None else np.asarray(labels), source=str(path))


def _count(part: Inputs) -> int:
    return min((len(array) for array in part.values()), default=0)


def read_arrays(path: str | Path) -> dict[str, Array]:
    """The arrays of an .npz.

    :raises DeburrError: E301 unreadable (pickled arrays are refused).
    """
    with _reading(str(path)), zipfile.ZipFile(path), np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


@contextmanager
def _reading(source: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error, EOFError, AttributeError, NotImplementedError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise DeburrError(
            "E301", "cannot read the data", where=source, why=why, hint="give an .npz written by numpy.savez"
        ) from error


def check_samples(arrays: Inputs, graph: Graph, *, labels: Array | None = None, source: str = "memory") -> Samples:
    """Samples from arrays, checked against the inputs of `graph`; errors as `load_samples`."""
    wanted = {value.name: value for value in graph.inputs if value.constant is None}
    optional = {value.name: value for value in graph.inputs if value.constant is not None}
    for name in wanted:
        if name not in arrays:
            raise DeburrError(
                "E302", f"no data for the input {name!r}", where=source,
                why=f"the file holds {', '.join(sorted(arrays)) or 'nothing'}", hint="name an array after each model input",
            )  # fmt: skip
    for name in arrays:
        if name not in wanted and name not in optional:
            raise DeburrError(
                "E302", f"the model has no input {name!r}", where=source,
                why=f"its inputs are {', '.join(wanted)}", hint="rename or remove the array",
            )  # fmt: skip
    for name, array in arrays.items():
        _check_array(name, array, wanted.get(name) or optional[name], source)
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        raise DeburrError("E303", "the arrays hold different numbers of samples", where=source, why=str(counts))
    if labels is not None and arrays and len(labels) != next(iter(counts.values())):
        raise DeburrError("E303", "as many labels as samples are needed", where=source, why=f"{len(labels)} labels, {counts}")
    return Samples(dict(arrays), labels, source)


def _check_array(name: str, array: Array | StoredArray, value: Value, source: str) -> None:
    where = f"{source}, array {name!r}"
    if array.ndim == 0 or len(array) == 0:
        raise DeburrError("E305", "no samples", where=where, why=f"the shape is {list(array.shape)}")
    if value.dtype is not None and value.dtype.numpy != array.dtype:
        raise DeburrError(
            "E303", "wrong dtype", where=where, why=f"the model takes {value.dtype}, the array is {array.dtype}",
            hint=f"convert it with .astype({value.dtype.numpy.name!r})",
        )  # fmt: skip
    shape = value.shape
    fits = shape is None or (
        len(shape) == array.ndim
        and all(not isinstance(dim, int) or dim == size for dim, size in zip(shape[1:], array.shape[1:], strict=True))
    )
    if not fits:
        raise DeburrError(
            "E303", "wrong shape", where=where, why=f"the model takes {value.type}, the array is {list(array.shape)}",
            hint="put the samples on the first axis",
        )  # fmt: skip
    if np.issubdtype(array.dtype, np.floating):
        _check_finite(array, where)


def _check_finite(array: Array | StoredArray, where: str) -> None:
    size = max(1, _CHUNK // max(1, math.prod(array.shape[1:]) * array.dtype.itemsize))
    finite = np.concatenate([np.isfinite(part.reshape(len(part), -1)).all(axis=1) for part in rows(array, size)])
    if not finite.all():
        bad = np.flatnonzero(~finite)
        raise DeburrError(
            "E304", "NaN or infinity in the data", where=where, why=f"in {len(bad)} samples, the first is number {bad[0]}"
        )
