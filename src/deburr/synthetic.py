"""Random inputs of the right shape: for timing, and for calibration only where the user asks for it by name."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from deburr.ir.errors import DeburrError
from deburr.ir.samples import Samples
from deburr.ir.types import Array, TensorType


def random_inputs(inputs: Mapping[str, TensorType], batch: int, seed: int = 0) -> dict[str, Array]:
    """Standard normal floats, integers and booleans in 0..1 (a safe index into anything), `batch` on the first axis.

    :raises DeburrError: E206 where a dimension other than the first is not a number.
    """
    generator = np.random.default_rng(seed)
    return {name: _random(name, tensor, batch, generator) for name, tensor in inputs.items()}


def _random(name: str, type: TensorType, batch: int, generator: np.random.Generator) -> Array:
    rest = type.shape[1:] if type.shape else None
    sizes = [dim for dim in rest or () if isinstance(dim, int)]
    if rest is None or len(sizes) != len(rest):
        raise DeburrError(
            "E206", "random data needs a known shape", where=f"input {name!r}",
            why=f"the model declares {type}", hint="give real data with --data",
        )  # fmt: skip
    shape, dtype = (batch, *sizes), type.dtype.numpy
    if type.dtype.is_float:
        return generator.standard_normal(shape).astype(dtype)
    return generator.integers(0, 2, shape).astype(dtype)


def synthetic_samples(inputs: Mapping[str, TensorType], count: int, seed: int = 0) -> Samples:
    """`count` random samples that say of themselves that they are synthetic."""
    return Samples(random_inputs(inputs, count, seed), source=f"{count} random samples", synthetic=True)
