"""Bundles: a compiled model as one directory, which runs without ONNX and without a compiler."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from deburr.ir.errors import DeburrError
from deburr.ir.types import Array, TensorType
from deburr.targets import batch_sizes
from deburr.targets import manifest as manifests
from deburr.targets.features import architecture_here, missing_here
from deburr.targets.manifest import Manifest, Tensor
from deburr.targets.nvidia import driver
from deburr.targets.runtime import Program

LIBRARY = "model.so"


class Bundle:
    """A program that is ready to run. `threads` is fixed when it is opened, and never changes a bit of the results."""

    def __init__(self, path: Path, description: Manifest, program: Program | None) -> None:
        self.path, self._description, self._loaded = path, description, program
        self._functions = {program.batch: program.function for program in description.programs}
        self._dtypes = [tensor.numpy for tensor in description.inputs]

    @classmethod
    def open(cls, path: str | Path, threads: int | None = None) -> Bundle:
        """Check a bundle and load it.

        :param threads: None for the number it was compiled for.
        :raises DeburrError: E501 not a bundle, E502 damaged, E503 this CPU lacks instructions or there is no
            such GPU, E901 no such number of threads.
        """
        folder = Path(path)
        description = manifests.read(folder)
        if description.architecture not in ("", architecture_here()):
            raise _wrong_architecture(folder, description.architecture)
        missing = missing_here(description.instruction_sets)
        if missing:
            raise _wrong_machine(folder, missing)
        if not _has_gpu(description.gpu):
            raise _wrong_gpu(folder, description.gpu)
        if threads is not None and threads < 1:
            raise DeburrError("E901", "no such number of threads", where=f"threads={threads}", hint="give 1 or more")
        functions = {
            program.function: [(tensor.sizes(program.batch), tensor.numpy) for tensor in description.inputs]
            for program in description.programs
        }
        program = Program(folder / LIBRARY, functions, threads or description.threads, gpu=bool(description.gpu))
        return cls(folder, description, program)

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
            if not _has_gpu(self._description.gpu):
                raise _wrong_gpu(self.path, self._description.gpu)
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
    def batches(self) -> tuple[int, ...]:
        """The numbers of samples that one call takes, in ascending order."""
        return tuple(self._functions)

    @property
    def threads(self) -> int:
        return self._program.threads

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Output name -> array. A number of samples that is none of `batches` runs in parts, the largest first.

        :raises DeburrError: E302 for a missing or unknown name, E303 for a wrong shape or dtype or a number of samples that
            the bundle was not compiled for and cannot divide, E504 where running fails.
        """
        arrays = self.ordered(inputs)
        count = self._samples(arrays)
        if count in self._functions:
            results = self._program.run(arrays, self._functions[count])
        else:
            results = self._run_in_parts(arrays, count)
        return {tensor.name: array for tensor, array in zip(self._description.outputs, results, strict=True)}

    def profile(self, inputs: Mapping[str, Array], calls: int = 20) -> list[list[tuple[str, float]]]:
        """Each of `calls` runs as the functions that it called, in order, with the seconds that each took.

        Those of ours begin with "deburr_" and follow the groups of the manifest's program; those that begin with "vm." are
        bookkeeping.

        :param inputs: for one run: as many samples as one of `batches`.
        :raises DeburrError: as `run`.
        """
        arrays = self.ordered(inputs)
        count = self._samples(arrays)
        if count not in self._functions:
            raise DeburrError("E303", "not one run", where=f"{count} samples", why=f"one run takes {self._choices()}")
        return self._program.profile(arrays, calls, self._functions[count])

    def _samples(self, arrays: list[Array]) -> int:
        """How many samples `arrays` hold; the batch size where the model fixes it."""
        counts = (len(array) for array, tensor in zip(arrays, self._description.inputs, strict=True) if tensor.is_open)
        return next(counts, self.batches[0])

    def _run_in_parts(self, arrays: list[Array], count: int) -> list[Array]:
        if not self._description.divisible:
            raise DeburrError(
                "E303", "the samples cannot be run in parts", where=f"{count} samples",
                why=f"not every input and output has them on its first axis, and the bundle takes {self._choices()} at once",
                hint=f"give as many, or compile it with --batch {count} too",
            )  # fmt: skip
        outputs = [np.empty((count, *tensor.sizes(0)[1:]), tensor.numpy) for tensor in self._description.outputs]
        start = 0
        for size in batch_sizes.parts(count, self.batches):
            given = [batch_sizes.part(array, start, size) for array in arrays]
            for output, result in zip(outputs, self._program.run(given, self._functions[size]), strict=True):
                output[start : start + size] = result[: count - start]
            start += size
        return outputs

    def _choices(self) -> str:
        return " or ".join(map(str, self.batches))

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
        if len({len(array) for array, tensor in zip(arrays, expected, strict=True) if tensor.is_open}) > 1:
            raise DeburrError("E303", "the inputs hold different numbers of samples", where="inputs")
        return arrays


def _wrong_architecture(folder: Path, architecture: str) -> DeburrError:
    return DeburrError(
        "E503", "the bundle is for another machine", where=str(folder),
        why=f"it is for {architecture}, this machine is {architecture_here()}", hint="--target host, or --device qemu",
    )  # fmt: skip


def _has_gpu(architectures: tuple[str, ...]) -> bool:
    """Whether this machine has a GPU that runs code for one of these, where any are asked for."""
    here = driver.architecture() if architectures else None
    return not architectures or (here is not None and driver.fits(here, architectures))


def _wrong_gpu(folder: Path, architectures: tuple[str, ...]) -> DeburrError:
    here = driver.architecture()
    found = "there is no NVIDIA GPU with a driver here" if here is None else f"the GPU here is {here}"
    return DeburrError(
        "E503", "the bundle is for another machine", where=str(folder),
        why=f"its kernels are for {', '.join(architectures)}, and {found}",
        hint="--target host" if here is None else f"--target nvidia/{here}",
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
