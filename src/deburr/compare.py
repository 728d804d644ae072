"""How close one program's outputs are to another's: SQNR, largest error, top-1 agreement, accuracy where labels are known."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
) -> Comparison:
    """Run both over `data`; models run in ONNX Runtime with graph optimizations off.

    :param data: an .npz, or arrays by input name, samples on the first axis; `labels` [samples] for accuracy.
    :raises DeburrError: E30x where the data does not fit, E302 where the outputs have no name in common.
    """
    inputs, labels, source = _read(data)
    runners = [open_runner(program, threads=threads) for program in (reference, candidate)]
    wanted, got = (run_samples(runner, _without_labels(runner, inputs), source=source) for runner in runners)
    if not set(wanted) & set(got):
        raise DeburrError(
            "E302", "no output in common", where=_name(candidate),
            why=f"its outputs are {', '.join(got)}, the reference's are {', '.join(wanted)}",
        )  # fmt: skip
    outputs = tuple(difference(name, wanted[name], got[name], labels) for name in wanted if name in got)
    return Comparison(_name(reference), _name(candidate), len(next(iter(inputs.values()))), source, outputs)


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


def _read(data: Samples | Mapping[str, Array] | str | Path) -> tuple[dict[str, Array], Array | None, str]:
    """The arrays as they are: only the programs know their inputs, and each checks for itself."""
    from deburr.ir.samples import Samples

    if isinstance(data, Samples):
        if data.others:
            raise DeburrError("E303", "samples of several sizes cannot be compared at once", where=data.source)
        return {name: np.asarray(array) for name, array in data.inputs.items()}, data.labels, data.source
    arrays = read_arrays(data) if isinstance(data, str | Path) else dict(data)
    return arrays, arrays.get("labels"), str(data) if isinstance(data, str | Path) else "memory"


def _without_labels(runner: Runner, inputs: Mapping[str, Array]) -> dict[str, Array]:
    return {name: array for name, array in inputs.items() if name != "labels" or name in runner.inputs}


def _name(program: Bundle | Model | str | Path) -> str:
    return str(program) if isinstance(program, str | Path) else type(program).__name__.lower()
