"""The process that builds: lowered model in, shared library out. A crash in here is the caller's error message, no more.

    python -m deburr.targets.worker FOLDER

FOLDER holds job.json and for each function of the library its lowered model, FUNCTION.onnx, and FUNCTION.inputs.npz where it
is to be run; model.so, FUNCTION.outputs.npz and result.json appear there. What a user can mend comes back as the fields of a
`DeburrError` in result.json.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from deburr.ir.errors import DeburrError
from deburr.targets import link
from deburr.targets.bundle import LIBRARY
from deburr.targets.features import architecture_here, missing_here
from deburr.targets.nvidia import cubin
from deburr.targets.process import arrays_of, read_arrays
from deburr.targets.target import Target


def main(folder: Path) -> None:
    """Do the job in `folder`; a result that it could not write is a crash to whoever waits."""
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    if job["memory_bytes"]:
        resource.setrlimit(resource.RLIMIT_AS, (job["memory_bytes"], job["memory_bytes"]))
    try:
        result = _build(folder, job)
    except DeburrError as error:
        result = {"error": [error.code, error.what, error.where, error.why, error.hint]}
    partial = folder / "result.json.partial"
    partial.write_text(json.dumps(result), encoding="utf-8")
    partial.replace(folder / "result.json")


def _build(folder: Path, job: dict[str, Any]) -> dict[str, Any]:
    import tvm
    import tvm_ffi

    from deburr.ir.onnx_reader import read
    from deburr.targets.emit import emit_all
    from deburr.targets.schedules.search import from_fields

    target = Target(**job["target"])
    models = {function: read(folder / f"{function}.onnx") for function in job["functions"]}
    schedules = {text: from_fields(fields) for text, fields in job["schedules"].items()}
    module = emit_all(models, target, schedules=schedules)
    compile_module(module, target, folder / LIBRARY, job["linker"], list(models))
    link.check(folder / LIBRARY, target)
    if target.gpu:
        cubin.check(folder / LIBRARY, target.gpu)
    sets = target.instruction_sets()
    given = [function for function in models if arrays_of(folder, function, "inputs").exists()]
    ran = given if target.architecture == architecture_here() and not missing_here(sets) and not target.gpu else []
    _run(folder, ran, job["threads"])
    versions = {"tvm": tvm.__version__, "tvm_ffi": tvm_ffi.__version__}
    return {"instruction_sets": list(sets), "ran": ran, "versions": versions}


def compile_module(
    module: Any, target: Target, library: Path, linker: Sequence[str], functions: Sequence[str] = ("main",)
) -> None:
    """Relax to machine code. Kernels that came without a schedule are fused, then scheduled by the default.

    :param functions: those that are called from outside. TVM stores a constant once that several of them have.
    """
    from deburr.targets.nvidia.pack import Packer

    with without_gpu():
        executable = build_module(module, target, functions)
    packing = {"fpack_imports": Packer(target.gpu)} if target.gpu else {}
    executable.export_library(
        str(library),
        fcompile=link.Linker(linker, static=link.is_static(target)),
        workspace_dir=str(library.parent),
        **packing,
    )


def build_module(module: Any, target: Target, functions: Sequence[str] = ("main",)) -> Any:
    """As `compile_module`, up to TVM's executable."""
    import tvm
    from tvm import relax

    from deburr.targets.nvidia import source
    from deburr.targets.schedules import pipeline, transcendental
    from deburr.targets.schedules.cuda import rounding
    from deburr.targets.schedules.default import schedule_module

    transcendental.register()
    rounding.register()
    device = pipeline.device(target)
    with device, tvm.transform.PassContext(config=source.CONFIG if target.gpu else {}):
        module = tvm.transform.Sequential(
            [
                relax.transform.LegalizeOps(),
                relax.transform.AnnotateTIROpPattern(),
                relax.transform.FoldConstant(),
                relax.transform.FuseOps(),
                relax.transform.FuseTIR(),
                relax.transform.DeadCodeElimination(list(functions)),
            ]
        )(module)
        return relax.build(schedule_module(module, gpu=bool(target.gpu)), device, tir_pipeline=pipeline.name())


@contextlib.contextmanager
def without_gpu() -> Iterator[None]:
    """TVM writes the same library whether or not there is a GPU here, which would compile the kernels for itself."""
    name = "TVM_COMPILE_FORCE_FALLBACK"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        os.environ.pop(name) if before is None else os.environ.update({name: before})


def _run(folder: Path, functions: Sequence[str], threads: int) -> None:
    import numpy as np

    from deburr.targets.runtime import Program

    inputs = {function: read_arrays(arrays_of(folder, function, "inputs")) for function in functions}
    if not inputs:
        return
    parameters = {function: [(array.shape, array.dtype) for array in arrays] for function, arrays in inputs.items()}
    program = Program(folder / LIBRARY, parameters, threads)
    for function, arrays in inputs.items():
        np.savez(arrays_of(folder, function, "outputs"), *program.run(arrays, function))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # TVM's threads are not worth waiting for
