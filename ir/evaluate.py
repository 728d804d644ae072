"""Running models in ONNX Runtime: the reference for every numeric check, and the executor for calibration."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deburr.ir import onnx_external, onnx_tensors
from deburr.ir.errors import DeburrError
from deburr.ir.model import Model
from deburr.ir.onnx_writer import TensorWriter, to_proto
from deburr.ir.samples import Samples
from deburr.ir.types import Array


class Evaluator:
    """A model in ONNX Runtime on the CPU.

    :param optimize: let ONNX Runtime rewrite the graph; off, the results are the reference.
    :param threads: of the one operator that runs; None: as many as there are cores.
    :param capture: names of values of the main graph that `run` gives back besides the outputs.
    :raises DeburrError: E108 where ONNX Runtime does not take the model or a name is unknown.
    """

    def __init__(
        self, model: Model, *, optimize: bool = False, threads: int | None = None, capture: Sequence[str] = ()
    ) -> None:
        values = {value.name: value for value in model.graph.values}
        for name in capture:
            if name not in values:
                raise DeburrError("E108", f"no value {name!r} to capture", why="the main graph has none of this name")
        self._constants = {name: values[name].constant for name in capture if values[name].is_constant}
        self._given = [name for name in capture if values[name].is_input]
        self.outputs = list(dict.fromkeys(value.name for value in model.graph.outputs))
        produced = [name for name in capture if name not in self._constants and name not in self._given]
        self._wanted = list(dict.fromkeys([*self.outputs, *produced]))
        self.batch = fixed_batch(model)
        self.inputs = {value.name for value in model.graph.inputs}
        self._session = _session(model, [name for name in produced if name not in self.outputs], optimize, threads)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs and captured values, by name. Where the model's batch is fixed, any number of samples runs in such batches.

        :raises DeburrError: E108 where an input is missing, unknown or misshaped, or an operator fails.
        """
        count = {len(array) for array in inputs.values() if np.ndim(array)}
        if self.batch is None or count == {self.batch} or len(count) != 1:
            return self._run(inputs)
        samples = Samples(inputs)
        parts = [self._padded(part, self.batch) for part in samples.batches(self.batch)]
        fixed = self._constants
        return {name: parts[0][name] if name in fixed else np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _padded(self, inputs: Mapping[str, Array], batch: int) -> dict[str, Array]:
        """Run fewer samples than the fixed batch: the last one is repeated, and the results of the repetitions are dropped."""
        count = len(next(iter(inputs.values())))
        padded = {name: np.concatenate([array, np.repeat(array[-1:], batch - count, axis=0)]) for name, array in inputs.items()}
        results = self._run(padded if count < batch else inputs)
        for name, array in results.items():
            if name not in self._constants and (array.ndim == 0 or len(array) != batch):
                why = f"the model's batch is fixed to {batch}, the shape of {name!r} is {list(array.shape)}"
                hint = f"give {batch} samples at a time"
                raise DeburrError("E108", "the results of several batches cannot be joined", why=why, hint=hint)
        return {name: array if name in self._constants else array[:count] for name, array in results.items()}

    def _run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        try:
            results = self._session.run(self._wanted, dict(inputs))
        except Exception as error:  # ONNX Runtime's own exceptions share no base but this one
            raise DeburrError("E108", "the model cannot be run", where=_place(error), why=_reason(error)) from error
        named = dict(zip(self._wanted, results, strict=True))
        named.update({name: np.asarray(inputs[name]) for name in self._given if name in inputs})
        named.update({name: constant.array for name, constant in self._constants.items() if constant is not None})
        return named


def capture(model: Model, names: Sequence[str], samples: Samples, batch: int = 32) -> Iterator[dict[str, Array]]:
    """The named values, batch by batch. A batch size that the model fixes goes first.

    Memory holds one batch if whoever reads it takes the arrays out of the mapping: nothing else refers to them.

    :raises DeburrError: as `Evaluator`.
    """
    evaluator = Evaluator(model, capture=names)
    for inputs in samples.batches(evaluator.batch or batch):
        results = evaluator.run(inputs)
        inputs.clear()
        wanted = {name: results[name] for name in names}
        del results
        yield wanted


def fixed_batch(model: Model) -> int | None:
    """The size that the model fixes its first axis to, the same for every input, or None."""
    needed = [value for value in model.graph.inputs if value.constant is None]
    sizes = {value.shape[0] if value.shape else None for value in needed}
    size = sizes.pop() if len(sizes) == 1 else None
    return size if isinstance(size, int) and size > 0 else None


def _session(model: Model, extra: Sequence[str], optimize: bool, threads: int | None) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimize else level.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.inter_op_num_threads = threads or 0, 1
    options.log_severity_level = 4
    try:
        if not onnx_external.is_too_big(model):
            data = _serialized(model, extra, onnx_tensors.tensor_proto)
            return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        with tempfile.TemporaryDirectory(prefix="deburr-") as folder:  # the session has read or mapped it all when it stands
            file = _write_beside(model, extra, Path(folder))
            return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except DeburrError:
        raise
    except OSError as error:
        why = error.strerror or str(error)
        raise DeburrError("E108", "no room for the model's weights", where=tempfile.gettempdir(), why=why) from error
    except Exception as error:  # as above
        raise DeburrError("E108", "ONNX Runtime does not take the model", where=_place(error), why=_reason(error)) from error


def _serialized(model: Model, extra: Sequence[str], tensor: TensorWriter) -> bytes:
    proto = to_proto(model, tensor)
    for name in extra:
        proto.graph.output.add(name=name)
    return bytes(proto.SerializeToString())


def _write_beside(model: Model, extra: Sequence[str], folder: Path) -> Path:
    layout = onnx_external.Layout.of(model, "weights.data")
    layout.write(folder / layout.location)
    file = folder / "model.onnx"
    file.write_bytes(_serialized(model, extra, layout.tensor))
    return file


def _reason(error: Exception) -> str:
    """ONNX Runtime's message without its source positions."""
    text = re.sub(r"\S+\.(cc|h):\d+ \S*\s?", "", str(error)).replace("\n", " ")
    return text.split("Status Message:")[-1].strip()[:300]


def _place(error: Exception) -> str:
    found = re.search(r"Name:'([^']+)'|[Nn]ode[: ]+\(?'?([\w./:]+)", str(error))
    return f"node {found.group(1) or found.group(2)!r}" if found else ""
