"""Tensors from attributes and sizes alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from deburr.passes.recover.operators.elementwise import torch_type
from deburr.passes.recover.operators.table import Call, Tensor, Uncovered, function


@function("Shape")
def shape(call: Call, x: Tensor) -> Tensor:
    return torch.tensor(list(x.shape)[slice(call.get("start", 0), call.get("end"))], dtype=torch.int64)


@function("Size")
def size(call: Call, x: Tensor) -> Tensor:
    return torch.tensor(x.numel(), dtype=torch.int64)


@function("Constant")
def constant(call: Call) -> Tensor:
    value = call.get("value")
    if value is not None:
        return tensor_of(value)
    for name, dtype in (("value_float", np.float32), ("value_floats", np.float32), ("value_int", np.int64),
                        ("value_ints", np.int64)):  # fmt: skip
        if call.get(name) is not None:
            return tensor_of(np.asarray(call.get(name), dtype))
    raise Uncovered("it is no dense tensor of numbers")


@function("ConstantOfShape")
def constant_of_shape(call: Call, sizes: Tensor) -> Tensor:
    value = np.asarray(call.get("value", np.zeros(1, np.float32)))
    return torch.full(sizes.tolist(), value.reshape(-1)[0].item(), dtype=torch_type(value.dtype))


@function("Range")
def range_(call: Call, start: Tensor, limit: Tensor, step: Tensor) -> Tensor:
    return torch.arange(start.item(), limit.item(), step.item(), dtype=start.dtype)


def tensor_of(array: Any) -> Tensor:
    """A tensor of its own from an array.

    :raises Uncovered: if torch has no such type.
    """
    made = np.array(array)  # constants are read-only, and torch.from_numpy would share them
    if made.dtype.name == "bfloat16":
        return torch.from_numpy(made.astype(np.float32)).to(torch.bfloat16)
    torch_type(made.dtype)
    return torch.from_numpy(made)
