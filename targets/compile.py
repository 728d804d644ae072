"""From a model to a bundle: prepare, lower, build in a process apart, check the numbers, write atomically."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deburr.ir.errors import DeburrError
from deburr.ir.files import write_atomically
from deburr.ir.model import Model
from deburr.ir.types import Array
from deburr.targets import link
from deburr.targets import manifest as manifests
from deburr.targets.bundle import Bundle
from deburr.targets.check import compare, inputs_for
from deburr.targets.device import files
from deburr.targets.device.program import find_device
from deburr.targets.features import architecture_here, missing_here
from deburr.targets.nvidia import driver, toolchain
from deburr.targets.process import Job, build
from deburr.targets.programs import Programs, lowered_for
from deburr.targets.schedules.search import to_fields
from deburr.targets.target import Target
from deburr.targets.tune import Request, tuned_schedules
from deburr.targets.tuning.tuner import Status

UNCHECKED = "the numbers were not checked: {}"
Progress = Callable[[Iterable[Any], int, str], Iterator[Any]]


@dataclass(frozen=True)
class Options:
    """How to build.

    :param batch: samples per run where the model leaves that open, or several such sizes; other numbers run in parts.
    :param symbols: sizes of other open axes, by the model's symbol or by input and axis, as "x.2".
    :param time_limit_s: seconds after which the build is given up.
    :param memory_limit_mb: address space of the build; None: what the machine has, and 8 GB.
    :param check: whether to run the result against ONNX Runtime before it is written.
    :param data: inputs for that check; None: random ones from the seed.
    :param tune: seconds to search for faster kernels, less what the records say was spent on this model.
    :param records: the log of tuning; its choices are used even without a search. None: with `tune`, one in the user's cache.
    :param tuning: called after each trial.
    :param runtime: whether a bundle for Linux brings TVM's runtime and a program that runs it without Python; None: if it is
        for another architecture.
    :param linker: the C compiler that links; None: what `link.find` finds.
    :param device: where kernels are timed and the numbers checked, as `find_device` takes it; None: here, if this CPU can.
    """

    batch: int | Sequence[int] = 1
    symbols: Mapping[str, int] | None = None
    time_limit_s: float = 600
    memory_limit_mb: int | None = None
    check: bool = True
    data: Mapping[str, Array] | None = None
    tune: float = 0
    records: str | Path | None = None
    tuning: Callable[[Status], None] | None = None
    linker: str | None = None
    runtime: bool | None = None
    device: str | None = None


def compile(  # noqa: A001
    model: Model,
    path: str | Path,
    *,
    target: Target,
    threads: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    **options: Any,
) -> Bundle:
    """Write the bundle of `model` to the directory `path` and open it. The model stays as it is.

    :param threads: what the bundle uses unless `Bundle.open` says otherwise; None: all cores of the target.
    :param options: the fields of `Options`.
    :raises DeburrError: E402 an operator that nothing supports, E403 the build crashed or computes other numbers, E404 it ran
        out of time, E405 no C or CUDA compiler, E406 what it linked does not fit the device, E901 an open axis or a wrong
        batch size, E109 the bundle cannot be written; and what a device says.
    """
    chosen, steps = Options(**options), _steps(progress)
    is_android = target.triple.endswith("-android") and bool(chosen.runtime)
    target = files.on_linux(target) if is_android else target
    linker = link.find(target, chosen.linker)
    device = None if chosen.device is None else find_device(chosen.device)
    if target.gpu:
        _check_gpu(target, chosen)
    next(steps)
    programs = lowered_for(model, target, chosen.batch, chosen.symbols)
    inputs = {one.function: inputs_for(one.lowered, chosen.data, seed) for one in programs.each} if chosen.check else {}
    next(steps)
    count = threads or target.cores
    request = Request(chosen.tune, chosen.records, chosen.device, chosen.tuning)
    lowered = {one.function: one.lowered for one in programs.each}
    tuned = {text: to_fields(it) for text, it in tuned_schedules(lowered.values(), target, count, request, seed).items()}
    job = Job(lowered, dataclasses.asdict(target), linker, count, inputs, chosen.time_limit_s, _memory(chosen), tuned)
    with build(job) as result:
        next(steps)

        def check(outputs: Mapping[str, list[Array]]) -> list[str]:
            return _check(model, programs, inputs, outputs, result.log)

        found = check(result.outputs) if result.outputs else [_unchecked(target)] if inputs and device is None else []
        description = manifests.Manifest(
            format=manifests.FORMAT, versions=_versions(result.versions), target=_plain(target),
            instruction_sets=result.instruction_sets, threads=count, seed=seed,
            pipeline=model.metadata.get("deburr.pipeline", ""), remarks=[*programs.remarks, *found],
            inputs=programs.inputs(), outputs=programs.outputs(), divisible=programs.divisible,
            programs=[one.describe(target.isa) for one in programs.each], files={},
        )  # fmt: skip
        bring = files.wanted(target, chosen.runtime)

        def write(fresh: Path) -> None:
            _write(fresh, result.library, description, target, bring=bring, system=is_android)
            if device is not None and inputs:
                _note(fresh, check({function: device.run(fresh, arrays)[0] for function, arrays in inputs.items()}))

        write_atomically(path, write)
    for _ in steps:
        pass
    is_ours = target.architecture == architecture_here() and target.triple.endswith("-linux-gnu")
    here = driver.architecture() if target.gpu else None
    runs_here = is_ours and not missing_here(result.instruction_sets)
    runs_here = runs_here and (not target.gpu or (here is not None and driver.fits(here, target.gpu)))
    return Bundle.open(path, threads) if runs_here else Bundle.inspect(path)


def _check_gpu(target: Target, options: Options) -> None:
    """Refuse early what takes long to find out.

    :raises DeburrError: E405 no CUDA compiler, E503 a search for kernels, E901 a program that runs without Python.
    """
    for architecture in target.gpu:
        toolchain.find(architecture)
    where = f"target {target.name!r}"
    if options.tune or options.records is not None:
        raise DeburrError(
            "E503", "no search for kernels of a GPU", where=where, why="there is none yet", hint="leave --tune out"
        )
    if options.runtime:
        raise DeburrError(
            "E901", "no program that runs without Python", where=where, why="ours computes on the CPU", hint="--no-runtime"
        )


def _unchecked(target: Target) -> str:
    return UNCHECKED.format(
        "its kernels are a GPU's" if target.gpu else "this CPU cannot run the program, and no --device was named"
    )


def _check(
    model: Model, programs: Programs, inputs: Mapping[str, list[Array]], outputs: Mapping[str, list[Array]], log: Path
) -> list[str]:
    """Why the numbers of a program could not be checked, where they could not.

    :raises DeburrError: E403 where one computes others than ONNX Runtime.
    """
    reasons = (
        compare(one.reference(model), inputs[one.function], outputs[one.function], log)
        for one in programs.each
        if one.function in inputs
    )
    return list(dict.fromkeys(filter(None, reasons)))


def _note(bundle: Path, remarks: Sequence[str]) -> None:
    """Add to the remarks of a bundle that is written already."""
    description = manifests.read(bundle)
    description.model_copy(update={"remarks": list(dict.fromkeys([*description.remarks, *remarks]))}).write(bundle)


def _write(folder: Path, library: Path, description: manifests.Manifest, target: Target, *, bring: bool, system: bool) -> None:
    folder.mkdir()
    shutil.copyfile(library, folder / link.library_name(target))
    if bring:
        files.collect(folder, target, system=system)
    found = {name: manifests.describe(file) for name, file in files.sources(folder).items()}
    description = description.model_copy(update={"files": found})
    if bring:
        text = files.describe(description)
        (folder / files.DESCRIPTION).write_text(text, encoding="utf-8")
        found[files.DESCRIPTION] = manifests.describe(folder / files.DESCRIPTION)
    description.write(folder)


def _steps(progress: Progress | None) -> Iterator[str]:
    names = ("lower", "build", "check", "write")
    return iter(names) if progress is None else progress(names, len(names), "compiling")


def _versions(built_with: Mapping[str, str]) -> dict[str, str]:
    from importlib.metadata import version

    return {"deburr": version("deburr"), **built_with}


def _plain(target: Target) -> dict[str, Any]:
    return {**dataclasses.asdict(target), "tvm": dict(target.tvm)}


def _memory(options: Options) -> int:
    if options.memory_limit_mb is not None:
        return options.memory_limit_mb * 2**20
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") + 8 * 2**30
