"""Bundles: a compiled model as one directory, which runs without ONNX and without a compiler."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from deburr.ir.errors import DeburrError
from deburr.ir.types import Array, TensorType
from deburr.targets import manifest as manifests
from deburr.targets.features import architecture_here, missing_here
from deburr.targets.manifest import Manifest, Tensor
from deburr.targets.runtime import Program

LIBRARY = "model.so"


class Bundle:
    """A program that is ready to run. `threads` is fixed when it is opened, and never changes a bit of the results."""

    def __init__(self, path: Path, description: Manifest, program: Program | None) -> None:
        self.path, self._description, self._loaded = path, description, program
        self._sizes = [tensor.sizes(description.batch) for tensor in description.inputs]
        self._dtypes = [tensor.numpy for tensor in description.inputs]

    @classmethod
    def open(cls, path: str | Path, threads: int | None = None) -> Bundle:
        """Check a bundle and load it.

        :param threads: None for the number it was compiled for.
        :raises DeburrError: E501 not a bundle, E502 damaged, E503 this CPU lacks instructions, E901 no such number of threads.
        """
        folder = Path(path)
        description = manifests.read(folder)
        if description.architecture not in ("", architecture_here()):
            raise _wrong_architecture(folder, description.architecture)
        missing = missing_here(description.instruction_sets)
        if missing:
            raise _wrong_machine(folder, missing)
        if threads is not None and threads < 1:
            raise DeburrError("E901", "no such number of threads", where=f"threads={threads}", hint="give 1 or more")
        parameters = [(tensor.sizes(description.batch), tensor.numpy) for tensor in description.inputs]
        return cls(folder, description, Program(folder / LIBRARY, parameters, threads or description.threads))

    @classmethod
    def inspect(cls, path: str | Path) -> Bundle:
        """Check a bundle without loading it, for any machine: it tells its manifest and does not run.

        :raises DeburrError: E501, E502.
        """
        return cls(Path(path), manifests.read(Path(path)), None)

    @property
    def _program(self) -> Program:
        if self._loaded is None:
            if self._description.architecture not in ("", architecture_here()):
                raise _wrong_architecture(self.path, self._description.architecture)
            raise _wrong_machine(self.path, missing_here(self._description.instruction_sets))
        return self._loaded

    @property
    def manifest(self) -> dict[str, Any]:
        """manifest.json as it stands in the bundle."""
        fields: dict[str, Any] = self._description.model_dump(mode="json")
        return fields

    @property
    def inputs(self) -> dict[str, TensorType]:
        """The inputs by name; a first axis "batch" takes any number of samples."""
        return {tensor.name: tensor.type for tensor in self._description.inputs}

    @property
    def outputs(self) -> dict[str, TensorType]:
        return {tensor.name: tensor.type for tensor in self._description.outputs}

    @property
    def threads(self) -> int:
        return self._program.threads

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Output name -> array. Where the batch is open, any number of samples runs, `manifest["batch"]` at a time.

        :raises DeburrError: E302 for a missing or unknown name, E303 for a wrong shape or dtype, E504 where running fails.
        """
        arrays = self.ordered(inputs)
        if all(array.shape == size for array, size in zip(arrays, self._sizes, strict=True)):
            results = self._program.run(arrays)
        else:
            results = self._run_in_parts(arrays)
        return {tensor.name: array for tensor, array in zip(self._description.outputs, results, strict=True)}

    def profile(self, inputs: Mapping[str, Array], calls: int = 20) -> list[list[tuple[str, float]]]:
        """Each of `calls` runs as the functions that it called, in order, with the seconds that each took.

        Those of ours begin with "deburr_" and follow `manifest["groups"]`; those that begin with "vm." are bookkeeping.

        :param inputs: for one run, `manifest["batch"]` samples.
        :raises DeburrError: as `run`.
        """
        arrays = self.ordered(inputs)
        for tensor, array, size in zip(self._description.inputs, arrays, self._sizes, strict=True):
            if array.shape != size:
                raise DeburrError(
                    "E303", "wrong shape", where=f"input {tensor.name!r}", why=f"one run takes {size}, not {array.shape}"
                )
        return self._program.profile(arrays, calls)

    def _run_in_parts(self, arrays: list[Array]) -> list[Array]:
        batch, count = self._description.batch, len(arrays[0])
        outputs = [np.empty((count, *tensor.sizes(batch)[1:]), tensor.numpy) for tensor in self._description.outputs]
        for start in range(0, count, batch):
            part = [array[start : start + batch] for array in arrays]
            size = len(part[0])
            if size < batch:  # the last part repeats its last sample
                part = [np.concatenate([array, np.repeat(array[-1:], batch - size, axis=0)]) for array in part]
            for output, result in zip(outputs, self._program.run(part), strict=True):
                output[start : start + size] = result[:size]
        return outputs

    def ordered(self, inputs: Mapping[str, Array]) -> list[Array]:
        """The inputs in the order of the program, checked.

        :raises DeburrError: E302, E303.
        """
        expected = self._description.inputs
        for tensor in expected:
            if tensor.name not in inputs:
                raise _wrong_name(f"no data for the input {tensor.name!r}", expected)
        if len(inputs) > len(expected):
            strange = next(name for name in inputs if name not in self.inputs)
            raise _wrong_name(f"the bundle has no input {strange!r}", expected)
        arrays = [np.asarray(inputs[tensor.name]) for tensor in expected]
        for tensor, array, dtype in zip(expected, arrays, self._dtypes, strict=True):
            fits = len(array.shape) == len(tensor.shape) and all(
                size in (None, given) for size, given in zip(tensor.shape, array.shape, strict=True)
            )
            if not fits or array.dtype != dtype or 0 in array.shape:
                raise DeburrError(
                    "E303", "wrong shape or dtype", where=f"input {tensor.name!r}",
                    why=f"the bundle takes {tensor.type}, the array is {array.dtype} {list(array.shape)}",
                )  # fmt: skip
        if len({len(array) for array, tensor in zip(arrays, expected, strict=True) if tensor.shape[:1] == [None]}) > 1:
            raise DeburrError("E303", "the inputs hold different numbers of samples", where="inputs")
        return arrays


def _wrong_architecture(folder: Path, architecture: str) -> DeburrError:
    return DeburrError(
        "E503", "the bundle is for another machine", where=str(folder),
        why=f"it is for {architecture}, this machine is {architecture_here()}", hint="--target host, or --device qemu",
    )  # fmt: skip


def _wrong_machine(folder: Path, missing: tuple[str, ...]) -> DeburrError:
    return DeburrError(
        "E503", "the bundle is for another machine", where=str(folder),
        why=f"this CPU lacks {', '.join(missing)}" if missing else "it was only looked at, not opened",
        hint="compile it for this one: --target host",
    )  # fmt: skip


def _wrong_name(what: str, expected: list[Tensor]) -> DeburrError:
    names = ", ".join(tensor.name for tensor in expected)
    return DeburrError("E302", what, where="inputs", why=f"it takes {names}", hint="name an array after each")
