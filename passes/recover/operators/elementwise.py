"""Functions of one tensor, element by element: activation functions and the functions of analysis."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from deburr.passes.recover.operators.table import Call, Tensor, Uncovered, function, plain

for _op, _made in {
    "Abs": torch.abs,
    "Acos": torch.acos,
    "Acosh": torch.acosh,
    "Asin": torch.asin,
    "Asinh": torch.asinh,
    "Atan": torch.atan,
    "Atanh": torch.atanh,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Cosh": torch.cosh,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "HardSwish": functional.hardswish,
    "Identity": lambda x: x,
    "IsNaN": torch.isnan,
    "Log": torch.log,
    "Mish": functional.mish,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Reciprocal": torch.reciprocal,
    "Relu": torch.relu,
    "Round": torch.round,  # both round half to even
    "Sigmoid": torch.sigmoid,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Sinh": torch.sinh,
    "Softplus": functional.softplus,
    "Softsign": functional.softsign,
    "Sqrt": torch.sqrt,
    "Tan": torch.tan,
    "Tanh": torch.tanh,
}.items():
    plain(_op, _made)

_TYPES = {
    "bool": torch.bool,
    "uint8": torch.uint8,
    "int8": torch.int8,
    "int16": torch.int16,
    "int32": torch.int32,
    "int64": torch.int64,
    "float16": torch.float16,
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
}


def torch_type(dtype: Any) -> Any:
    """The torch type of a numpy dtype.

    :raises Uncovered: if torch has none.
    """
    name = np.dtype(dtype).name
    if name not in _TYPES:
        raise Uncovered(f"torch has no type {name}")
    return _TYPES[name]


@function("Clip")
def clip(call: Call, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    bounds = []
    for given, name in ((low, "min"), (high, "max")):
        number = call.get(name)
        bounds.append(given if given is not None else None if number is None else torch.as_tensor(number, dtype=x.dtype))
    # Where the bounds cross, the upper one holds.
    x = x if bounds[0] is None else torch.maximum(x, bounds[0].to(x.device))
    return x if bounds[1] is None else torch.minimum(x, bounds[1].to(x.device))


@function("LeakyRelu")
def leaky_relu(call: Call, x: Tensor) -> Tensor:
    return functional.leaky_relu(x, call.get("alpha", 0.01))


@function("Elu")
def elu(call: Call, x: Tensor) -> Tensor:
    return functional.elu(x, call.get("alpha", 1.0))


@function("Celu")
def celu(call: Call, x: Tensor) -> Tensor:
    return functional.celu(x, call.get("alpha", 1.0))


@function("Selu")
def selu(call: Call, x: Tensor) -> Tensor:
    alpha, gamma = call.get("alpha", 1.67326319217681884765625), call.get("gamma", 1.05070102214813232421875)
    return gamma * functional.elu(x, alpha)


@function("ThresholdedRelu")
def thresholded_relu(call: Call, x: Tensor) -> Tensor:
    return functional.threshold(x, call.get("alpha", 1.0), 0.0)


@function("HardSigmoid")
def hard_sigmoid(call: Call, x: Tensor) -> Tensor:
    return torch.clamp(x * call.get("alpha", 0.2) + call.get("beta", 0.5), 0.0, 1.0)


@function("Swish")
def swish(call: Call, x: Tensor) -> Tensor:
    return x * torch.sigmoid(call.get("alpha", 1.0) * x)


@function("Gelu")
def gelu(call: Call, x: Tensor) -> Tensor:
    return functional.gelu(x, approximate=_text(call.get("approximate", "none")))


@function("Shrink")
def shrink(call: Call, x: Tensor) -> Tensor:
    bias, limit = call.get("bias", 0.0), call.get("lambd", 0.5)
    return torch.where(x < -limit, x + bias, torch.where(x > limit, x - bias, torch.zeros_like(x)))


@function("IsInf")
def is_inf(call: Call, x: Tensor) -> Tensor:
    found = torch.zeros_like(x, dtype=torch.bool)
    if call.get("detect_positive", 1):
        found = found | (x == math.inf)
    return found | (x == -math.inf) if call.get("detect_negative", 1) else found


@function("Cast")
def cast(call: Call, x: Tensor) -> Tensor:
    from deburr.ir.types import DType

    return x.to(torch_type(DType(call.get("to")).numpy))


@function("CastLike")
def cast_like(call: Call, x: Tensor, like: Tensor) -> Tensor:
    return x.to(like.dtype)


@function("Dropout")
def dropout(call: Call, x: Tensor, *unused: Tensor | None) -> Any:
    """As it is at inference: a model that is given back must compute what was trained."""
    if len(unused) > 1 and unused[1] is not None and bool(unused[1]):
        raise Uncovered("it runs in training mode")
    if call.outputs > 1:
        return x, torch.ones_like(x, dtype=torch.bool)
    return x


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
