"""Functions of several tensors that are broadcast against each other."""

from __future__ import annotations

from functools import reduce

import torch

from deburr.passes.recover.operators.table import Call, Tensor, function, plain

for _op, _made in {
    "Add": torch.add,
    "And": torch.logical_and,
    "Equal": torch.eq,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "Max": lambda *tensors: reduce(torch.maximum, tensors),
    "Mean": lambda *tensors: reduce(torch.add, tensors) / len(tensors),
    "Min": lambda *tensors: reduce(torch.minimum, tensors),
    "Mul": torch.mul,
    "Or": torch.logical_or,
    "PRelu": lambda x, slope: torch.where(x < 0, slope * x, x),
    "Pow": lambda x, power: torch.pow(x, power).to(x.dtype),
    "Sub": torch.sub,
    "Sum": lambda *tensors: reduce(torch.add, tensors),
    "Where": torch.where,
    "Xor": torch.logical_xor,
}.items():
    plain(_op, _made)


@function("Div")
def divide(call: Call, x: Tensor, y: Tensor) -> Tensor:
    return torch.div(x, y) if x.is_floating_point() else torch.div(x, y, rounding_mode="trunc")


@function("Mod")
def modulo(call: Call, x: Tensor, y: Tensor) -> Tensor:
    """The sign of the divisor, or with `fmod` that of the dividend."""
    return torch.fmod(x, y) if call.get("fmod", 0) else torch.remainder(x, y)
