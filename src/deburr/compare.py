"""How close one program's outputs are to another's: SQNR, largest error, top-1 agreement, accuracy where labels are known."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from deburr.ir.errors import DeburrError
from deburr.ir.fidelity import accuracy, sqnr_db
from deburr.ir.samples import read_arrays
from deburr.ir.types import Array
from deburr.runner import Runner, open_runner, run_samples

if TYPE_CHECKING:
    from deburr.ir.model import Model
    from deburr.ir.samples import Samples
    from deburr.targets.bundle import Bundle


@dataclass(frozen=True, slots=True)
class OutputDifference:
    """One output of the candidate against the reference's.

    `sqnr_db` is 10 log10(signal power / error power), infinite where the outputs are equal; the top-1 figures are None where
    the output is no [samples, classes] score, the accuracies where there are no labels.
    """

    output: str
    sqnr_db: float
    max_abs_error: float
    top1_agreement: float | None
    reference_accuracy: float | None
    candidate_accuracy: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """What `deburr compare` prints, per output."""

    reference: str
    candidate: str
    samples: int
    data: str
    outputs: tuple[OutputDifference, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data; an infinite SQNR is None, because JSON has no infinity."""
        document = asdict(self)
        document["outputs"] = [
            {**output, "sqnr_db": output["sqnr_db"] if math.isfinite(output["sqnr_db"]) else None}
            for output in document["outputs"]
        ]
        return document


def compare(
    reference: Bundle | Model | str | Path,
    candidate: Bundle | Model | str | Path,
    data: Samples | Mapping[str, Array] | str | Path,
    *,
    threads: int | None = None,
    device: str | None = None,
) -> Comparison:
    """Run both over `data`; models run in ONNX Runtime with graph optimizations off.

    :param data: an .npz, or arrays by input name, samples on the first axis; `labels` [samples] for accuracy. A folder of
        .npz holds samples of several sizes; the figures are over all of them.
    :param device: where the candidate runs, a bundle's directory; the reference runs here.
    :raises DeburrError: E30x where the data does not fit, E302 where the outputs have no name in common; what a device says.
    """
    parts, source = _read(data)
    runners = [open_runner(reference, threads=threads), open_runner(candidate, threads=threads, device=device)]
    made = [
        [run_samples(runner, _without_labels(runner, part.inputs), source=part.source) for runner in runners] for part in parts
    ]
    wanted, got = made[0]
    if not set(wanted) & set(got):
        raise DeburrError(
            "E302", "no output in common", where=_name(candidate),
            why=f"its outputs are {', '.join(got)}, the reference's are {', '.join(wanted)}",
        )  # fmt: skip
    labels = np.concatenate([part.labels for part in parts if part.labels is not None]) if parts[0].labels is not None else None
    outputs = tuple(_difference(name, made, labels) for name in wanted if name in got)
    count = sum(len(next(iter(part.inputs.values()))) for part in parts)
    return Comparison(_name(reference), _name(candidate), count, source, outputs)


def _difference(name: str, made: Sequence[Sequence[Mapping[str, Array]]], labels: Array | None) -> OutputDifference:
    """Over all parts; outputs whose size follows that of the samples are compared element by element."""
    pairs = [(wanted[name], got[name]) for wanted, got in made]
    for wanted, got in pairs:
        if wanted.shape != got.shape:
            return difference(name, wanted, got)  # which says so
    if len({wanted.shape[1:] for wanted, _ in pairs}) > 1:
        pairs = [(wanted.ravel(), got.ravel()) for wanted, got in pairs]
    return difference(name, np.concatenate([one for one, _ in pairs]), np.concatenate([one for _, one in pairs]), labels)


def difference(name: str, wanted: Array, got: Array, labels: Array | None = None) -> OutputDifference:
    """Compare two arrays of one shape, samples on the first axis.

    :raises DeburrError: E303 where the shapes differ.
    """
    if wanted.shape != got.shape:
        raise DeburrError(
            "E303", "the outputs differ in shape", where=f"output {name!r}",
            why=f"the reference gives {list(wanted.shape)}, the candidate {list(got.shape)}",
        )  # fmt: skip
    signal, error = wanted.astype(np.float64), got.astype(np.float64) - wanted.astype(np.float64)
    scores = wanted.ndim == 2 and wanted.shape[1] > 1
    return OutputDifference(
        output=name,
        sqnr_db=sqnr_db(signal, error),
        max_abs_error=float(np.abs(error).max(initial=0)),
        top1_agreement=float(np.mean(wanted.argmax(1) == got.argmax(1))) if scores else None,
        reference_accuracy=accuracy(wanted, labels) if scores else None,
        candidate_accuracy=accuracy(got, labels) if scores else None,
    )


class _Part(NamedTuple):
    """Samples of one size."""

    inputs: dict[str, Array]
    labels: Array | None
    source: str


def _read(data: Samples | Mapping[str, Array] | str | Path) -> tuple[list[_Part], str]:
    """The arrays as they are: only the programs know their inputs, and each checks for itself.

    :raises DeburrError: E301 for a file that cannot be read, E303 where some have labels and others none, E305 for a folder
        without files.
    """
    from deburr.ir.samples import Samples

    if isinstance(data, Samples):
        return _parts_of(data), data.source
    if not isinstance(data, str | Path):
        return [_Part(dict(data), data.get("labels"), "memory")], "memory"
    files = sorted(Path(data).glob("*.npz")) if Path(data).is_dir() else [Path(data)]
    if not files:
        raise DeburrError("E305", "no samples", where=str(data), why="the folder holds no .npz")
    arrays = [(read_arrays(file), str(file)) for file in files]
    parts = [_Part(one, one.get("labels"), source) for one, source in arrays]
    bare = [part.source for part in parts if part.labels is None]
    if 0 < len(bare) < len(parts):
        raise DeburrError("E303", "labels are missing", where=bare[0], why="other files of the folder have some")
    return parts, str(data)


def _parts_of(samples: Samples) -> list[_Part]:
    parts, start = [], 0
    for inputs in samples.parts:
        arrays = {name: np.asarray(array) for name, array in inputs.items()}
        count = len(next(iter(arrays.values())))
        labels = None if samples.labels is None else samples.labels[start : start + count]
        parts.append(_Part(arrays, labels, samples.source))
        start += count
    return parts


def _without_labels(runner: Runner, inputs: Mapping[str, Array]) -> dict[str, Array]:
    return {name: array for name, array in inputs.items() if name != "labels" or name in runner.inputs}


def _name(program: Bundle | Model | str | Path) -> str:
    return str(program) if isinstance(program, str | Path) else type(program).__name__.lower()
