"""Does the program compute the model? Its outputs against ONNX Runtime's, before a bundle is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from deburr.ir.errors import DeburrError
from deburr.ir.evaluate import Evaluator
from deburr.ir.model import Model
from deburr.ir.types import Array
from deburr.targets.lower.widen import holds_float16

FLOAT_ERROR = 1e-3  # root mean square of the difference, over that of the reference
HALF_ERROR = 1e-2  # where the model holds float16: ONNX Runtime rounds between operators, the program does not
INTEGER_ERROR = 0.1  # where the model is quantized: one step here and there, on inputs that may be nothing but noise
# Some quantized models make more of such a step. How much, ONNX Runtime shows: with its optimizations it computes on integers,
# without on floats, and either is right. The program may be this many times as far away as the two are from each other.
OWN_DISTANCE = 2.0


def inputs_for(model: Model, data: Mapping[str, Array] | None, seed: int) -> list[Array]:
    """One batch per input, from `data` where it holds enough, else random: reals in [0, 1), integers 0 or 1.

    Compiled code checks no index, so larger integers could read beyond a table.
    """
    generator, arrays = np.random.default_rng(seed), []
    for value in model.graph.inputs:
        if value.constant is not None or value.static_shape is None or value.dtype is None:
            continue
        dtype, shape = value.dtype.numpy, value.static_shape
        given = None if data is None else data.get(value.name)
        if given is not None and given.shape[1:] == shape[1:] and len(given) >= shape[0]:
            arrays.append(np.ascontiguousarray(given[: shape[0]], dtype))
        elif np.issubdtype(dtype, np.integer) or dtype == np.bool_:
            arrays.append(generator.integers(0, 2, shape).astype(dtype))
        else:
            arrays.append(generator.random(shape).astype(dtype))
    return arrays


def compare(model: Model, inputs: Sequence[Array], outputs: Sequence[Array], log: Path) -> str:
    """Why the outputs could not be compared with ONNX Runtime's as others are; nothing where they were, and agree.

    :raises DeburrError: E403 where an output is too far from ONNX Runtime's.
    """
    names = [value.name for value in model.graph.inputs if value.constant is None]
    given, told = dict(zip(names, inputs, strict=True)), ""
    try:
        expected = Evaluator(model).run(given)
    except DeburrError as error:
        if error.code != "E108":
            raise
        return f"the numbers were not checked: ONNX Runtime cannot run the model ({error.why})"
    quantized = any(node.op in ("QuantizeLinear", "QLinearConv", "DynamicQuantizeLinear") for node in model.graph.nodes)
    allowed = INTEGER_ERROR if quantized else HALF_ERROR if holds_float16(model) else FLOAT_ERROR
    for value, array in zip(model.graph.outputs, outputs, strict=True):
        distance = relative_error(expected[value.name], array)
        if distance <= allowed:
            continue
        own = relative_error(expected[value.name], Evaluator(model, optimize=True).run(given)[value.name]) if quantized else 0.0
        if not (np.isfinite(own) and distance <= OWN_DISTANCE * own):
            raise DeburrError(
                "E403", "the compiled program computes other numbers", where=f"output {value.name!r}",
                why=f"relative error {distance:.2g} against ONNX Runtime, {allowed:g} is allowed", hint=f"its log: {log}",
            )  # fmt: skip
        told = (
            f"rounding weighs much in this model: {value.name!r} is {distance:.2g} from ONNX Runtime's, which is {own:.2g} "
            "from its own with optimizations; compare them on real data"
        )
    return told


def relative_error(expected: Array, given: Array) -> float:
    """Root mean square of the difference over that of `expected`; infinite where shapes or NaNs differ."""
    if expected.shape != given.shape:
        return float("inf")
    a, b = expected.astype(np.float64), given.astype(np.float64)
    finite = np.isfinite(a)
    if not np.array_equal(np.nan_to_num(a[~finite], nan=1), np.nan_to_num(b[~finite], nan=1)):
        return float("inf")
    difference, size = np.sqrt(np.mean((a - b)[finite] ** 2)), np.sqrt(np.mean(a[finite] ** 2))
    return 0.0 if a[finite].size == 0 else float(difference / max(size, 1e-12))
