"""deburr compare"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deburr.cli import output
from deburr.cli.options import Device, Json, Threads


def compare(
    *,
    reference: Annotated[Path, typer.Argument(metavar="REFERENCE", help="A model or a bundle.")],
    candidate: Annotated[Path, typer.Argument(metavar="CANDIDATE", help="A model or a bundle.")],
    data: Annotated[Path, typer.Option("--data", metavar="EVAL.npz", help="Samples, and `labels` if known; or a folder.")],
    threads: Threads = None,
    device: Device = None,
    json: Json = None,
) -> None:
    """How close a candidate's outputs are to a reference's.

    With --device the candidate, a bundle, runs there, and the reference here."""
    from deburr.compare import compare as measure

    output.require_writable(json)
    with output.timed("compared"):
        found = measure(reference, candidate, data, threads=threads, device=device)
    if not output.quiet(json):
        output.table(
            ["output", "SQNR dB", "max error", "top-1 agreement", "accuracy", "candidate's"],
            [
                (one.output, f"{one.sqnr_db:.1f}", f"{one.max_abs_error:.3g}", *map(_share, (
                    one.top1_agreement, one.reference_accuracy, one.candidate_accuracy)))
                for one in found.outputs
            ],
        )  # fmt: skip
        output.put(f"{found.samples} samples of {found.data}")
    output.write_json(found.to_json(), json)


def _share(figure: float | None) -> str:
    return "-" if figure is None else f"{figure:.2%}"
