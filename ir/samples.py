"""Samples for calibration and evaluation: an .npz with an array per model input, samples on the first axis."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deburr.ir.errors import DeburrError
from deburr.ir.graph import Graph
from deburr.ir.types import Array
from deburr.ir.value import Value


@dataclass(frozen=True, eq=False)
class Samples:
    """`inputs[name]` has shape [samples, …] as the model input `name` without its batch axis; `labels` [samples] or None.

    `synthetic` is True where the user asked for random data in place of real samples: every report says so.
    """

    inputs: Mapping[str, Array]
    labels: Array | None = None
    source: str = "memory"
    synthetic: bool = False

    def __len__(self) -> int:
        return min((len(array) for array in self.inputs.values()), default=0)

    def batches(self, size: int) -> Iterator[dict[str, Array]]:
        """Consecutive batches of at most `size` samples."""
        for start in range(0, len(self), size):
            yield {name: array[start : start + size] for name, array in self.inputs.items()}

    def take(self, count: int) -> Samples:
        """The first `count` samples."""
        labels = None if self.labels is None else self.labels[:count]
        return Samples({name: array[:count] for name, array in self.inputs.items()}, labels, self.source, self.synthetic)

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
        labels = None if self.labels is None else self.labels[chosen]
        inputs = {name: array[: len(self)][chosen] for name, array in self.inputs.items()}
        return Samples(inputs, labels, self.source, self.synthetic)


def load_samples(path: str | Path, graph: Graph) -> Samples:
    """Read an .npz and check it against the inputs of `graph`.

    :raises DeburrError: E301 unreadable (pickled arrays are refused), E302 missing or unknown names, E303 shape or dtype,
        E304 NaN or infinity, E305 no samples.
    """
    arrays = read_arrays(path)
    labels = arrays.pop("labels", None) if not any(value.name == "labels" for value in graph.inputs) else None
    return check_samples(arrays, graph, labels=labels, source=str(path))


def read_arrays(path: str | Path) -> dict[str, Array]:
    """The arrays of an .npz.

    :raises DeburrError: E301 unreadable (pickled arrays are refused).
    """
    try:
        with zipfile.ZipFile(path), np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, AttributeError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise DeburrError(
            "E301", "cannot read the data", where=str(path), why=why, hint="give an .npz written by numpy.savez"
        ) from error


def check_samples(arrays: Mapping[str, Array], graph: Graph, *, labels: Array | None = None, source: str = "memory") -> Samples:
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


def _check_array(name: str, array: Array, value: Value, source: str) -> None:
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
    if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
        bad = np.argwhere(~np.isfinite(array.reshape(len(array), -1)).all(axis=1)).ravel()
        raise DeburrError(
            "E304", "NaN or infinity in the data", where=where, why=f"in {len(bad)} samples, the first is number {bad[0]}"
        )
