"""The front door from Python: six functions, each of which hands over to the room that does the work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deburr.ir.types import Array

if TYPE_CHECKING:
    from deburr.ir.model import Model
    from deburr.ir.samples import Samples
    from deburr.passes.core import Progress, Remark
    from deburr.passes.instruments import Instrument
    from deburr.passes.pipeline import Pipeline
    from deburr.targets.bundle import Bundle

    Data = Samples | Mapping[str, Array] | Sequence[Mapping[str, Array]] | str | Path


def load(path: str | Path) -> Model:
    """Read an ONNX file, check it, and infer its shapes.

    :raises DeburrError: E101 to E106, naming the file, the node or the tensor.
    """
    from deburr.ir.onnx_reader import read

    return read(path)


def save(model: Model, path: str | Path) -> None:
    """Write a model as ONNX: whole or not at all, and the same bytes for the same model.

    :raises DeburrError: E109 where the file cannot be written.
    """
    from deburr.ir.onnx_writer import write

    write(model, path)


def optimize(
    model: Model | str | Path,
    pipeline: str | Pipeline = "clean",
    *,
    data: Data | None = None,
    target: str | None = None,
    seed: int = 0,
    remarks: list[Remark] | None = None,
    instruments: Sequence[Instrument] = (),
    progress: Progress | None = None,
) -> Model:
    """A new model, changed by the passes of `pipeline`. The model that was given stays as it is.

    :param pipeline: pipeline text such as ``"clean,prune-channels{ratio=0.4},quantize"``, or a recipe's name.
    :param data: calibration samples: an .npz, or arrays by input name with the samples on the first axis. Samples of several
        sizes: a folder of .npz, or a list of such arrays.
    :param target: the device that the model is meant for, one of `deburr targets`: its vectors decide how `prune-channels`
        rounds, and a budget in latency is measured on it.
    :param remarks: a list that receives what the passes declined to do, and why.
    :raises DeburrError: E2xx for the pipeline, E3xx for the data, E401 for the target.
    :raises KeyboardInterrupt: but the first Ctrl-C during a pass that keeps its best model (prune-gradually, prune-search) only
        ends that pass: there is a remark, and the result's metadata `deburr.interrupted` names it.
    """
    from deburr.ir.duplicate import duplicate
    from deburr.passes import manager
    from deburr.passes.core import Context
    from deburr.passes.pipeline import parse
    from deburr.targets.target import find, lanes_of, names

    parsed = parse(pipeline) if isinstance(pipeline, str) else pipeline
    if target is not None and target not in names():
        find(target)  # raises, with the nearest name; looking at the host itself would import TVM for nothing
    changed = load(model) if isinstance(model, str | Path) else duplicate(model)
    context = Context(changed, data=samples_for(changed, data), target=target, seed=seed)
    if target is not None:
        from deburr.stopwatch import stopwatch

        context.lanes, context.latency = lanes_of(target), stopwatch(target, seed)
    if progress is not None:
        context.progress = progress
    if remarks is not None:
        context.remarks = remarks
    manager.run(parsed, context, instruments)
    _note_pipeline(context.model, parsed)
    if context.interrupted is not None:
        context.model.metadata["deburr.interrupted"] = context.interrupted.name
    return context.model


def compile(  # noqa: A001
    model: Model | str | Path,
    path: str | Path,
    *,
    target: str = "host",
    threads: int | None = None,
    batch: int | Sequence[int] = 1,
    tune: float = 0,
    records: str | Path | None = None,
    seed: int = 0,
    **settings: Any,
) -> Bundle:
    """Lower a model to machine code and write it as a bundle: one directory that runs without ONNX.

    :param target: one of `deburr targets`.
    :param threads: how many the program uses unless `open` says otherwise; None for all cores of the target.
    :param batch: samples per run where the model leaves that open. Several sizes become one bundle, with a program for each and
        the weights once; it runs any number of samples in parts of these sizes.
    :param tune: seconds to search for faster kernels. What `records` say was spent on this model counts: asked for again, the
        same seconds measure nothing. Control-C ends the search and compiles with the best so far.
    :param records: the log that a search writes to, and whose choices are used also without one; by default, where `tune` is
        given, `records.jsonl` in the user's cache folder (~/.cache/deburr on Linux).
    :param settings: what `deburr.targets.compile` takes besides: symbols, time_limit_s, check, data, progress, tuning.
    :raises DeburrError: E4xx; E503 where a search was asked for another machine; E101, E109 for the records.
    """
    from deburr.targets.compile import compile as lower
    from deburr.targets.target import find

    chosen = find(target)
    loaded = load(model) if isinstance(model, str | Path) else model
    given: dict[str, Any] = {"threads": threads, "batch": batch, "tune": tune, "records": records, "seed": seed}
    return lower(loaded, path, target=chosen, **given, **settings)


def open(path: str | Path, threads: int | None = None) -> Bundle:  # noqa: A001
    """A compiled bundle, ready to `run({"input": array})` on `threads` threads.

    :raises DeburrError: E501 to E503.
    """
    from deburr.targets.bundle import Bundle

    return Bundle.open(path, threads=threads)


def run(program: Bundle | Model | str | Path, inputs: Mapping[str, Array], threads: int | None = None) -> dict[str, Array]:
    """Run a bundle, or a model in ONNX Runtime, on any number of samples (first axis): output name -> array.

    :raises DeburrError: E302 or E303 where the inputs do not fit, E504 where running fails.
    """
    from deburr.runner import open_runner, run_samples

    return run_samples(open_runner(program, threads=threads), inputs)


def samples_for(model: Model, data: Data | None) -> Samples | None:
    """`data` in whatever form it was given, checked against the inputs of `model`.

    :raises DeburrError: E301 to E305.
    """
    from deburr.ir.samples import Samples, join, load_samples

    if data is None or isinstance(data, Samples):
        return data
    if isinstance(data, str | Path):
        return load_samples(data, model.graph)
    parts = [data] if isinstance(data, Mapping) else data
    return join([_from_memory(model, part) for part in parts], "memory")


def _from_memory(model: Model, data: Mapping[str, Array]) -> Samples:
    from deburr.ir.samples import check_samples

    arrays = dict(data)
    labels = None if any(value.name == "labels" for value in model.graph.inputs) else arrays.pop("labels", None)
    return check_samples(arrays, model.graph, labels=labels)


def _note_pipeline(model: Model, pipeline: Pipeline) -> None:
    """Let the file say what was done to it; a bundle's manifest hands it on."""
    done = [model.metadata.get("deburr.pipeline", ""), str(pipeline.expanded())]
    model.metadata["deburr.pipeline"] = ",".join(filter(None, done))
