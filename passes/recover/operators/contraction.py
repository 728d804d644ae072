"""Sums of products: convolutions and matrix products."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from deburr.passes.recover.operators.table import Call, Tensor, Uncovered, function, plain
from deburr.passes.recover.operators.windows import padded, padding

_CONV = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_TRANSPOSED = {1: functional.conv_transpose1d, 2: functional.conv_transpose2d, 3: functional.conv_transpose3d}

plain("MatMul", torch.matmul)


@function("Einsum")
def einsum(call: Call, *tensors: Tensor) -> Tensor:
    equation = call.get("equation")
    return torch.einsum(equation.decode() if isinstance(equation, bytes) else equation, *tensors)


@function("Gemm")
def gemm(call: Call, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    a, b = (a.T if call.get("transA", 0) else a), (b.T if call.get("transB", 0) else b)
    alpha, beta = call.get("alpha", 1.0), call.get("beta", 1.0)
    if c is not None and alpha == beta == 1 and c.ndim <= 2:
        return torch.addmm(c, a, b)
    product = a @ b if alpha == 1 else alpha * (a @ b)
    return product if c is None else product + (c if beta == 1 else beta * c)


@function("Conv")
def conv(call: Call, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    rank = _spatial(x)
    strides, dilations = _sizes(call, "strides", rank), _sizes(call, "dilations", rank)
    begin, end = padding(call, x.shape[2:], weight.shape[2:], strides, dilations)
    if begin != end:
        x, begin = padded(x, begin, end), [0] * rank
    return _CONV[rank](x, weight, bias, strides, begin, dilations, call.get("group", 1))


@function("ConvTranspose")
def conv_transpose(call: Call, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    rank = _spatial(x)
    if call.get("output_shape") is not None or call.get("auto_pad", "NOTSET") not in ("NOTSET", b"NOTSET"):
        raise Uncovered("its padding follows from output_shape or auto_pad")
    strides, dilations = _sizes(call, "strides", rank), _sizes(call, "dilations", rank)
    extra = list(call.get("output_padding") or [0] * rank)
    pads = list(call.get("pads") or [0] * 2 * rank)
    # torch pads evenly: compute without padding and cut.
    y = _TRANSPOSED[rank](x, weight, bias, strides, [0] * rank, [0] * rank, call.get("group", 1), dilations)
    if any(extra):
        y = functional.pad(y, [size for one in reversed(extra) for size in (0, one)])
        if bias is not None:  # what was added has no products, but a bias
            y = _bias_in_extra(y, bias, extra)
    for axis in range(rank):
        y = y.narrow(axis + 2, pads[axis], y.shape[axis + 2] - pads[axis] - pads[rank + axis])
    return y


def _bias_in_extra(y: Tensor, bias: Tensor, extra: list[int]) -> Tensor:
    mask = torch.zeros(y.shape[2:], dtype=torch.bool)
    for axis, count in enumerate(extra):
        if count:
            mask.narrow(axis, y.shape[axis + 2] - count, count).fill_(True)
    return torch.where(mask, bias.reshape(-1, *[1] * len(extra)), y)


def _spatial(x: Tensor) -> int:
    rank = x.ndim - 2
    if rank not in _CONV:
        raise Uncovered(f"torch convolves over 1 to 3 axes, not {rank}")
    return int(rank)


def _sizes(call: Call, name: str, rank: int) -> list[int]:
    given: Any = call.get(name)
    return [1] * rank if given is None else list(given)
