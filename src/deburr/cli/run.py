"""deburr run"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deburr.cli import output
from deburr.cli.options import Device, Threads

if TYPE_CHECKING:
    from deburr.ir.types import Array


def run(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle (or an ONNX file, for ONNX Runtime).")],
    given: Annotated[Path, typer.Option("--input", metavar="X.npz", help="An array per input, samples on the first axis.")],
    out: Annotated[Path, typer.Option("-o", "--output", metavar="Y.npz", help="Where the outputs go, an array each.")],
    threads: Threads = None,
    device: Device = None,
) -> None:
    """Run a compiled model on every sample of a file."""
    from deburr.ir.samples import read_arrays
    from deburr.runner import open_runner, run_samples

    output.require_writable(out)
    inputs = read_arrays(given)
    runner = open_runner(bundle, threads=threads, device=device)
    if "labels" not in runner.inputs:
        inputs.pop("labels", None)
    with output.timed("ran"):
        outputs = run_samples(runner, inputs, source=str(given))
    _write(out, outputs)
    output.table(
        ["output", "shape", "dtype"], [(name, list(array.shape), array.dtype) for name, array in outputs.items()], left=3
    )


def _write(path: Path, arrays: dict[str, Array]) -> None:
    from deburr.arrays import write_arrays
    from deburr.ir.files import write_atomically

    write_atomically(path, lambda temporary: write_arrays(temporary, arrays))
