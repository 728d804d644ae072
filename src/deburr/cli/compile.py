"""deburr compile"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deburr.cli import output
from deburr.cli.options import Json, Seed, Threads


def compile_model(
    *,
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="The model to compile, float or with QDQ nodes.")],
    out: Annotated[Path, typer.Option("-o", "--output", metavar="BUNDLE", help="The directory that the program goes to.")],
    target: Annotated[str, typer.Option("--target", metavar="NAME", help="One of `deburr targets`.")] = "host",
    threads: Threads = None,
    tune: Annotated[
        float,
        typer.Option(
            "--tune", metavar="SECONDS", min=0, help="Search for faster kernels, past searches in the records included."
        ),
    ] = 0,
    records: Annotated[
        Path | None,
        typer.Option(
            "--records",
            metavar="FILE",
            help="What searches found: read, and written to (with --tune: ~/.cache/deburr/records.jsonl).",
        ),
    ] = None,
    batch: Annotated[
        str,
        typer.Option(
            "--batch",
            metavar="N[,N...]",
            help="Samples per run where the model leaves it open; a program for each size, all in one bundle.",
        ),
    ] = "1",
    dims: Annotated[
        list[str] | None,
        typer.Option(
            "--dim",
            metavar="SYMBOL=N",
            help="Size of another axis that the model leaves open; INPUT.AXIS=N if it has no symbol.",
        ),
    ] = None,
    time_limit: Annotated[float, typer.Option("--time-limit", metavar="SECONDS", min=1, help="Give the build up after.")] = 600,
    linker: Annotated[
        str | None,
        typer.Option("--linker", metavar="COMPILER", help="The C compiler that links, for instance an Android NDK's clang."),
    ] = None,
    runtime: Annotated[
        bool | None,
        typer.Option(
            "--runtime/--no-runtime",
            help="Bring TVM's runtime and a program that runs the bundle on a Linux without Python (elsewhere than here: yes).",
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            metavar="DEVICE",
            help="Time kernels and check the numbers there: rpc://HOST:PORT, ssh://USER@HOST, qemu.",
        ),
    ] = None,
    seed: Seed = 0,
    json: Json = None,
) -> None:
    """Turn a model into machine code.

    A bundle is one directory that runs without ONNX."""
    from deburr import api
    from deburr.report import folder_bytes
    from deburr.targets.batch_sizes import parse

    sizes = parse(batch)
    output.require_writable(out, json, records)
    with output.timed(f"compiled for {target}"), output.tuning(tune) as tuning:
        bundle = api.compile(
            model, out, target=target, threads=threads, tune=tune, records=records, seed=seed,
            progress=None if tune else output.progress,
            batch=sizes, symbols=_sizes(dims or []), time_limit_s=time_limit, tuning=tuning, linker=linker,
            runtime=runtime, device=device,
        )  # fmt: skip
    for remark in bundle.manifest["remarks"]:
        output.say(f"remark: {remark}")
    document = {"bundle": str(out), "bytes": folder_bytes(out), "manifest": bundle.manifest}
    if not output.quiet(json):
        output.put(f"{out}  {document['bytes']} bytes")
    output.write_json(document, json)


def _sizes(dims: list[str]) -> dict[str, int]:
    from deburr.ir.errors import DeburrError

    sizes = {}
    for text in dims:
        symbol, _, size = text.partition("=")
        if not symbol or not size.isdecimal() or int(size) < 1:
            raise DeburrError("E901", "not a size", where=f"--dim {text}", hint="write SYMBOL=NUMBER")
        sizes[symbol] = int(size)
    return sizes
