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
    batch: Annotated[int | None, typer.Option("--batch", metavar="N", min=1, help="Samples per call (1 unless given).")] = None,
    rounds: Annotated[int, typer.Option("--rounds", metavar="N", min=1, help="Turns that each candidate gets.")] = 20,
    profile: Annotated[
        bool, typer.Option("--profile", help="Where one bundle's time goes, against the machine's ceiling.")
    ] = False,
    picture: Annotated[
        Path | None, typer.Option("--picture", metavar="FILE", help="With --profile: draw it as .png, .svg or .pdf.")
    ] = None,
    device: Device = None,
    seed: Seed = 0,
    json: Json = None,
) -> None:
    """Time programs side by side.

    A process each, turns interleaved, the same threads and inputs for all. Inputs are random unless --data is given."""
    from deburr import measure, measure_device
    from deburr.ir.errors import DeburrError
    from deburr.ir.samples import read_arrays

    output.require_writable(json, picture)
    arrays = read_arrays(data) if data is not None else None
    if arrays is not None:
        arrays.pop("labels", None)
    if profile or picture is not None:
        alone = paths if profile and not peer and device is None else []
        _profile(alone, picture, json, threads=threads, data=arrays, batch=batch, seed=seed)
        return
    how: dict[str, Any] = {"threads": threads, "data": arrays, "batch": batch or 1, "rounds": rounds, "seed": seed}
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


def _profile(paths: list[Path], picture: Path | None, json: Path | None, **options: Any) -> None:
    """:raises DeburrError: E901 unless there is one bundle and nothing to set it against."""
    from deburr.ir.errors import DeburrError
    from deburr.picture import matplotlib_for
    from deburr.profile import profile
    from deburr.profile_chart import draw

    if len(paths) != 1:
        raise DeburrError(
            "E901", "a profile is of one bundle alone", where="--profile", hint="deburr bench BUNDLE --profile [--picture FILE]"
        )
    if picture is not None:
        matplotlib_for("--picture", picture)
    with output.timed("profiled"):
        found = profile(paths[0], **options)
    if picture is not None:
        draw(found, picture)
    if not output.quiet(json):
        output.table(
            ["layer", "operator", "sizes", "us", "share", "GMAC/s", "of ceiling"],
            [
                (row.layer, row.operator, row.shape, f"{row.us:.1f}", f"{row.share:.1%}", _figure(row.gmacs, ".0f"),
                 _figure(row.of_ceiling, ".0%"))
                for row in found.rows
            ],
            left=3,
        )  # fmt: skip
        ceilings = ", ".join(f"{rate / 1e9:.0f} GMAC/s on {dtype}" for dtype, rate in found.ceilings.items())
        runs = f"{found.threads} threads, batch {found.batch}, medians of {found.runs} runs, inputs {found.inputs}"
        output.put(f"{found.total_us:.0f} us in all, {runs}")
        output.put(f"the ceiling, bare instructions on all threads: {ceilings or 'not asked for'}")
        for remark in found.remarks:
            output.put(f"remark: {remark}")
    output.write_json(found.to_json(), json)


def _figure(number: float | None, form: str) -> str:
    return "-" if number is None else format(number, form)
