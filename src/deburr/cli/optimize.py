"""deburr optimize"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deburr.cli import output
from deburr.cli.options import Data, Json, Seed

if TYPE_CHECKING:
    from deburr.ir.model import Model
    from deburr.ir.samples import Samples
    from deburr.passes.instruments import Instrument


def optimize(
    *,
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="The model to change.")],
    out: Annotated[Path, typer.Option("-o", "--output", metavar="OUT.onnx", help="Where the new model goes.")],
    pipeline: Annotated[
        str,
        typer.Option("-p", "--pipeline", metavar="PIPELINE|RECIPE|@FILE", help="What to do; see `deburr passes`."),
    ] = "clean",
    data: Data = None,
    synthetic: Annotated[
        int | None,
        typer.Option(
            "--synthetic-data", metavar="N", min=1, help="Calibrate on N random samples. Costs accuracy; reports say so."
        ),
    ] = None,
    target: Annotated[
        str | None, typer.Option("--target", metavar="NAME", help="The device that the model is meant for.")
    ] = None,
    seed: Seed = 0,
    json: Json = None,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="DIR", help="Write report.json and report.md there.")
    ] = None,
    remarks: Annotated[bool, typer.Option("--remarks", help="Say what the passes left alone, and why.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Print the layers whose rounding costs most.")] = False,
    timing: Annotated[bool, typer.Option("--timing", help="Seconds per pass.")] = False,
    statistics: Annotated[bool, typer.Option("--statistics", help="Edits and nodes per pass.")] = False,
    verify_each: Annotated[bool, typer.Option("--verify-each", help="Verify the model after every pass.")] = False,
    print_before: Annotated[
        list[str] | None, typer.Option("--print-before", metavar="PASS|*", help="Print the model's text before a pass.")
    ] = None,
    print_after: Annotated[
        list[str] | None, typer.Option("--print-after", metavar="PASS|*", help="… and after a pass.")
    ] = None,
    diff: Annotated[bool, typer.Option("--diff", help="Print what each pass changed.")] = False,
    bisect_limit: Annotated[
        int | None, typer.Option("--bisect-limit", metavar="N", min=0, help="Run the first N steps only.")
    ] = None,
) -> None:
    """Run passes over a model and write the model that comes out.

    Ctrl-C during a pass that searches ends that pass with its best model so far, which is written; the exit status is 130 all
    the same. A second Ctrl-C writes nothing.
    """
    from deburr import api
    from deburr.passes.core import Remark
    from deburr.passes.pipeline import parse
    from deburr.passes.quantize.explain import Explanation
    from deburr.report import OptimizeReport

    parsed = parse(pipeline)
    output.require_writable(out, json)
    before = api.load(model)
    samples = _samples(before, data, synthetic, seed)
    told: list[Remark] = []
    watchers = _instruments(
        timing=timing, statistics=statistics, verify_each=verify_each, before=print_before or [], after=print_after or [],
        diff=diff, limit=bisect_limit,
    )  # fmt: skip
    explanation = Explanation()
    watchers += [explanation] if explain else []
    with output.timed(f"optimized with {parsed}"):
        after = api.optimize(
            before, parsed, data=samples, target=target, seed=seed, remarks=told, progress=output.progress,
            instruments=watchers,
        )  # fmt: skip
    api.save(after, out)
    for remark in told if remarks else []:
        output.say(f"remark: {remark}")
    if told and not remarks:
        output.say(f"{len(told)} remarks on what was left alone (--remarks prints them)")
    written = OptimizeReport.of(
        source=model, before=before, out=out, after=after, pipeline=parsed, data=samples, seed=seed, remarks=told
    )
    if not output.quiet(json):
        output.table(written.columns, written.rows)
        if explain:
            output.put("\n" + (explanation.refusal or "The layers whose rounding costs most, each rounded alone:"))
            output.table(explanation.columns, explanation.rows)
    if written.warning:
        output.say(f"warning: {written.warning}")
    explained = {"layers": explanation.to_json()} if explain else {}
    output.write_json(written.to_json() | explained, json)
    if report is not None:
        from deburr.sparsity import changes

        written.write(report, changes(before, after))
    if written.interrupted:
        raise typer.Exit(output.INTERRUPTED)


def _samples(model: Model, data: Path | None, synthetic: int | None, seed: int) -> Samples | None:
    from deburr import api
    from deburr.ir.errors import DeburrError
    from deburr.runner import model_inputs
    from deburr.synthetic import synthetic_samples

    if data is not None and synthetic is not None:
        raise DeburrError("E901", "both real and random data", where="--data and --synthetic-data", hint="give one of them")
    if synthetic is not None:
        return synthetic_samples(model_inputs(model), synthetic, seed)
    return api.samples_for(model, data)


def _instruments(
    *, timing: bool, statistics: bool, verify_each: bool, before: list[str], after: list[str], diff: bool, limit: int | None
) -> list[Instrument]:
    from deburr.passes import instruments

    chosen: list[Instrument] = [instruments.SayInterrupted()]
    chosen += [instruments.VerifyEach()] if verify_each else []
    chosen += [instruments.Timing()] if timing else []
    chosen += [instruments.Statistics()] if statistics else []
    chosen += [instruments.PrintModel(_known(before), _known(after))] if before or after else []
    chosen += [instruments.Diff()] if diff else []
    chosen += [instruments.BisectLimit(limit)] if limit is not None else []
    return chosen


def _known(names: list[str]) -> list[str]:
    """:raises DeburrError: E202 for a pass that does not exist, because printing nothing would look like no change."""
    from deburr.passes.registry import passes

    for name in names:
        if name != "*":
            passes().find(name, "E202", "pass", where="--print-before or --print-after")
    return names
