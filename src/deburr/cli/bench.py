"""deburr bench"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from deburr.cli import output
from deburr.cli.options import Data, Device, Json, Seed, Threads


def bench(
    *,
    paths: Annotated[
        list[Path], typer.Argument(metavar="BUNDLE|MODEL...", help="What to time; the first is what the rest are set against.")
    ],
    peer: Annotated[
        list[str] | None,
        typer.Option(
            "--peer", metavar="NAME", help="Time the models in onnxruntime (without this option too), openvino. Repeatable."
        ),
    ] = None,
    threads: Threads = None,
    data: Data = None,
    batch: Annotated[int, typer.Option("--batch", metavar="N", min=1, help="Samples per call.")] = 1,
    rounds: Annotated[int, typer.Option("--rounds", metavar="N", min=1, help="Turns that each candidate gets.")] = 20,
    device: Device = None,
    seed: Seed = 0,
    json: Json = None,
) -> None:
    """Time programs side by side.

    A process each, turns interleaved, the same threads and inputs for all. Inputs are random unless --data is given."""
    from deburr import measure, measure_device
    from deburr.ir.errors import DeburrError
    from deburr.ir.samples import read_arrays

    output.require_writable(json)
    arrays = read_arrays(data) if data is not None else None
    if arrays is not None:
        arrays.pop("labels", None)
    how: dict[str, Any] = {"threads": threads, "data": arrays, "batch": batch, "rounds": rounds, "seed": seed}
    with output.timed("measured"):
        if device is None:
            measured = measure.bench(measure.candidates(paths, peer or []), progress=output.progress, **how)
        elif peer:
            raise DeburrError("E901", "a device runs no peers", where=f"--peer {peer[0]}", hint="leave --peer or --device out")
        else:
            measured = measure_device.bench(paths, device, progress=output.progress, **how)
    if not output.quiet(json):
        output.table(
            ["program", "engine", "p50 ms", "p90 ms", "time / first"],
            [(row.name, row.engine, f"{row.p50_ms:.3f}", f"{row.p90_ms:.3f}", f"{row.ratio:.2f}") for row in measured.rows],
            left=2,
        )
        used = f"{measured.threads} threads" if measured.threads else "the threads compiled for"
        output.put(f"{used}, batch {measured.batch}, {measured.rounds} turns each, inputs {measured.inputs}")
    output.write_json(measured.to_json(), json)
