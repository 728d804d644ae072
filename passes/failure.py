"""The failure bundle: what someone else needs to see the same failure, in one folder."""

from __future__ import annotations

import json
import platform
import shlex
import shutil
import tempfile
import traceback
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from deburr.ir.errors import DeburrError
from deburr.passes.core import Context
from deburr.passes.instruments import Instrument, Step
from deburr.passes.pipeline import Pipeline

_PACKAGES = ("deburr", "numpy", "onnx", "onnx-graphsurgeon", "onnxruntime", "networkx", "apache-tvm")


@dataclass
class FailureBundle(Instrument):
    """If a pass fails, write `folder`: input.onnx, pipeline.txt, failure.json (error, step, versions) and replay.sh.

    The model as it came in is kept in a temporary file during the run, because passes edit it in place. Calibration data is
    not copied: the replay command names the file that it was read from.
    """

    folder: Path
    _kept: tempfile.TemporaryDirectory[str] | None = field(default=None, repr=False)
    _pipeline: Pipeline = field(default_factory=Pipeline, repr=False)

    def before_pipeline(self, pipeline: Pipeline, context: Context) -> None:
        from deburr.ir.onnx_writer import write

        self._pipeline, self._kept = pipeline, tempfile.TemporaryDirectory(prefix="deburr-")
        write(context.model, self._input)

    def after_pipeline(self, pipeline: Pipeline, context: Context) -> None:
        self._drop()

    def failed(self, step: Step, context: Context, error: DeburrError) -> None:
        """:raises DeburrError: E109 if the folder cannot be written."""
        from deburr.ir.files import write_atomically

        def fill(folder: Path) -> None:
            folder.mkdir()
            for file in self._input.parent.iterdir():  # the weights of a large model lie beside it
                shutil.copy(file, folder / file.name)
            (folder / "pipeline.txt").write_text(f"{self._pipeline.expanded()}\n", encoding="utf-8")
            (folder / "failure.json").write_text(json.dumps(_report(step, error), indent=2) + "\n", encoding="utf-8")
            (folder / "replay.sh").write_text(f"{replay_command(context)}\n", encoding="utf-8")

        write_atomically(self.folder, fill)
        self._drop()

    @property
    def _input(self) -> Path:
        assert self._kept is not None
        return Path(self._kept.name) / "input.onnx"

    def _drop(self) -> None:
        if self._kept is not None:
            self._kept.cleanup()
            self._kept = None


def replay_command(context: Context) -> str:
    """The one line that runs it again, inside the folder."""
    command = ["deburr", "optimize", "input.onnx", "-o", "output.onnx", "-p", "@pipeline.txt", "--seed", str(context.seed)]
    if context.target is not None:
        command += ["--target", context.target]
    if context.data is not None:
        source = Path(context.data.source)
        command += ["--data", str(source.resolve()) if source.exists() else "CALIBRATION.npz"]
    return shlex.join(command)


def versions() -> dict[str, str]:
    """Python, the machine, and the packages that results depend on."""
    return {"python": platform.python_version(), "machine": platform.platform()} | {name: _version(name) for name in _PACKAGES}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "missing"


def _report(step: Step, error: DeburrError) -> dict[str, Any]:
    cause = error.__cause__ or error
    trace = "".join(traceback.format_exception(type(cause), cause, cause.__traceback__))
    return {
        "error": str(error), "code": error.code, "step": step.number, "pass": str(step.pass_), "nest": list(step.nest),
        "versions": versions(), "traceback": trace.splitlines(),
    }  # fmt: skip
