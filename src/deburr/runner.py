"""One way to run things: a bundle in its own runtime, or a model in ONNX Runtime, on any number of samples."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from deburr.ir.errors import DeburrError
from deburr.ir.types import Array, DType, TensorType

if TYPE_CHECKING:
    from deburr.ir.model import Model
    from deburr.targets.bundle import Bundle

BATCH = 32  # samples per call of ONNX Runtime where the model leaves the choice


class Runner(Protocol):
    """What runs: its inputs by name, the samples that a call best takes (None: all, it divides them itself), and `run`."""

    @property
    def inputs(self) -> Mapping[str, TensorType]: ...

    @property
    def batch(self) -> int | None: ...

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]: ...


class ModelRunner:
    """A model in ONNX Runtime; graph optimizations are off unless `optimize`, because that is the reference."""

    batch = BATCH

    def __init__(self, model: Model, *, optimize: bool = False, threads: int | None = None) -> None:
        from deburr.ir.evaluate import Evaluator

        self._evaluator = Evaluator(model, optimize=optimize, threads=threads)
        self.inputs = model_inputs(model)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return self._evaluator.run(inputs)


class BundleRunner:
    """A compiled bundle."""

    batch = None

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self.inputs = bundle.inputs

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return self._bundle.run(inputs)


def model_inputs(model: Model) -> dict[str, TensorType]:
    """The inputs that a caller must give.

    :raises DeburrError: E206 for an input that is no tensor.
    """
    inputs = {}
    for value in model.graph.inputs:
        if value.constant is not None:
            continue
        if not isinstance(value.type, TensorType):
            raise DeburrError("E206", "only tensors can be fed", where=f"input {value.name!r}", why=f"its type is {value.type}")
        inputs[value.name] = value.type
    return inputs


def open_runner(
    program: Bundle | Model | str | Path, *, optimize: bool = False, threads: int | None = None, device: str | None = None
) -> Runner:
    """A runner for a bundle's directory, an ONNX file, or what was loaded from either.

    :param device: where a bundle's directory is to run, if not here.
    :raises DeburrError: E901 for an unknown device, or for one that is to run an ONNX file.
    """
    from deburr import api
    from deburr.ir.model import Model

    if device is not None:
        from deburr.targets.device.program import DeviceProgram, find_device

        if not isinstance(program, str | Path) or not Path(program).is_dir():
            raise DeburrError(
                "E901", "not a bundle", where=str(program), why="a device runs bundles", hint="`deburr compile` it"
            )
        return DeviceProgram(program, find_device(device), threads)
    if isinstance(program, str | Path):
        path = Path(program)
        program = api.open(path, threads=threads) if path.is_dir() else api.load(path)
    if isinstance(program, Model):
        return ModelRunner(program, optimize=optimize, threads=threads)
    return BundleRunner(program)


def batch_size(inputs: Mapping[str, TensorType]) -> int | None:
    """The size of the first axis where the program fixes it, else None."""
    sizes = {tensor.shape[0] for tensor in inputs.values() if tensor.shape}
    fixed = [size for size in sizes if isinstance(size, int)]
    return fixed[0] if len(fixed) == 1 else None


def run_samples(
    runner: Runner, inputs: Mapping[str, Array], batch: int | None = None, source: str = "inputs"
) -> dict[str, Array]:
    """Outputs for all samples, in batches of the program's own size; a last batch is filled up and its surplus dropped.

    :param batch: samples per call where the program leaves the choice; None for what suits it.

    :raises DeburrError: E302 for a missing or unknown name, E303 for a wrong shape, E305 for no samples.
    """
    count = check_inputs(runner.inputs, inputs, source)
    fixed = batch_size(runner.inputs)
    size = fixed or min(batch or runner.batch or count, count)
    collected: dict[str, list[Array]] = {}
    for start in range(0, count, size):
        part = {name: np.ascontiguousarray(array[start : start + size]) for name, array in inputs.items()}
        real = min(size, count - start)
        if fixed and real < fixed:
            part = {name: np.concatenate([array, array[-1:].repeat(fixed - real, 0)]) for name, array in part.items()}
        for name, output in runner.run(part).items():
            whole_batch = output.ndim > 0 and len(output) == len(next(iter(part.values())))
            collected.setdefault(name, []).append(output[:real] if whole_batch else output[None])
    return {name: np.concatenate(parts) for name, parts in collected.items()}


def _numpy(dtype: DType) -> np.dtype[np.generic]:
    """`DType.numpy` asks ONNX, which running a bundle does without: where numpy has a type of that name, it is meant."""
    name = {"float": "float32", "double": "float64"}.get(str(dtype), str(dtype))
    try:
        return np.dtype(name)
    except TypeError:
        return dtype.numpy


def check_inputs(expected: Mapping[str, TensorType], inputs: Mapping[str, Array], source: str = "inputs") -> int:
    """Number of samples in `inputs`, which must fit the names, dtypes and shapes that the program expects."""
    for name in (*expected, *inputs):
        if name not in inputs or name not in expected:
            what = f"no data for the input {name!r}" if name in expected else f"the program has no input {name!r}"
            raise DeburrError(
                "E302", what, where=source, why=f"it takes {', '.join(expected)}", hint="name an array after each"
            )
    for name, array in inputs.items():
        tensor = expected[name]
        shape = tensor.shape
        fits = shape is None or (
            len(shape) == array.ndim
            and all(not isinstance(dim, int) or dim == size for dim, size in zip(shape[1:], array.shape[1:], strict=True))
        )
        if not fits or array.dtype != _numpy(tensor.dtype):
            raise DeburrError(
                "E303", "shape or dtype does not fit", where=f"{source}, array {name!r}",
                why=f"the program takes {tensor}, the array is {array.dtype}{list(array.shape)}",
                hint="put the samples on the first axis",
            )  # fmt: skip
    counts = {name: len(array) if array.ndim else 0 for name, array in inputs.items()}
    if len(set(counts.values())) > 1:
        raise DeburrError("E303", "the arrays hold different numbers of samples", where=source, why=str(counts))
    count = next(iter(counts.values()), 0)
    if count == 0:
        raise DeburrError("E305", "no samples", where=source, why="the first axis is empty")
    return count
