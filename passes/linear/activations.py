"""Calibration data sent through the model, and its activations handed to whoever wants to look at them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from deburr.ir.errors import DeburrError
from deburr.ir.evaluate import capture
from deburr.ir.samples import Samples
from deburr.ir.types import Array
from deburr.ir.value import Value
from deburr.passes.core import Context

FEW_SAMPLES = 32
LARGEST_BATCH = 32
MEMORY = 32 * 2**20  # bytes of activations in a batch


def activations(values: Sequence[Value], context: Context, description: str) -> Iterator[dict[Value, Array]]:
    """The given values of the main graph, for all of ``context.data`` in batches whose activations fit in `MEMORY`.

    Take the arrays out of the mapping: then the next batch finds its memory free.

    :raises DeburrError: E206 without data, E305 with none in it, E304 where a value turns out to be NaN or infinite.
    """
    samples = _samples(context)
    names = [value.name for value in values]
    batch = _batch(names, samples, context)
    batches = capture(context.model, names, samples, batch)
    for results in context.progress(batches, samples.batch_count(batch), description):
        for name in names:
            _check_finite(name, results[name], samples)
        taken = {value: results.pop(value.name) for value in values}
        yield taken


def _samples(context: Context) -> Samples:
    samples = context.data
    name = context.running.name if context.running else "this pass"
    if samples is None:
        raise DeburrError(
            "E206", f"{name} needs calibration data", why="none was given", hint="give samples with --data FILE.npz"
        )
    if not len(samples):
        raise DeburrError("E305", "no calibration samples", where=samples.source)
    if len(samples) < FEW_SAMPLES:
        reason = f"only {len(samples)} calibration samples: ranges are measured on few numbers"
        context.remark(samples.source, reason, f"give at least {FEW_SAMPLES}")
    return samples


def _batch(names: Sequence[str], samples: Samples, context: Context) -> int:
    """How many samples go through the model at once: the largest goes first, to see how much memory its activations take."""
    first = next(capture(context.model, names, samples.largest(), 1))
    size = sum(array.nbytes for array in first.values())
    return max(1, min(LARGEST_BATCH, MEMORY // max(size, 1)))


def _check_finite(name: str, array: Array, samples: Samples) -> None:
    if array.size and not np.isfinite(array).all():
        raise DeburrError(
            "E304", "NaN or infinity inside the model", where=f"tensor {name!r}",
            why=f"it arises from the calibration data in {samples.source}",
            hint="look for samples out of the usual range, or an overflow in the model",
        )  # fmt: skip
