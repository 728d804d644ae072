"""Axes that disappear or become 1, and positions of extremes."""

from __future__ import annotations

from typing import Any

import torch

from deburr.passes.recover.operators.table import Call, Tensor, Uncovered, axes_of, function


def _extreme(made: Any, x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    if not x.numel():
        raise Uncovered("it is the extreme of nothing")
    if x.dtype is torch.bool:
        return made(x.to(torch.uint8), axes, keepdim=keep).to(torch.bool)
    return made(x, axes, keepdim=keep)


def _product(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    for axis in reversed(axes):
        x = x.prod(axis, keepdim=keep)
    return x


_REDUCTIONS: dict[str, Any] = {
    "ReduceL1": lambda x, axes, keep: x.abs().sum(axes, keepdim=keep),
    "ReduceL2": lambda x, axes, keep: x.square().sum(axes, keepdim=keep).sqrt(),
    "ReduceLogSum": lambda x, axes, keep: x.sum(axes, keepdim=keep).log(),
    "ReduceLogSumExp": lambda x, axes, keep: torch.logsumexp(x, axes, keepdim=keep),
    "ReduceMax": lambda x, axes, keep: _extreme(torch.amax, x, axes, keep),
    "ReduceMean": lambda x, axes, keep: x.mean(axes, keepdim=keep),
    "ReduceMin": lambda x, axes, keep: _extreme(torch.amin, x, axes, keep),
    "ReduceProd": _product,
    "ReduceSum": lambda x, axes, keep: x.sum(axes, keepdim=keep),
    "ReduceSumSquare": lambda x, axes, keep: x.square().sum(axes, keepdim=keep),
}


@function(*_REDUCTIONS)
def reduce(call: Call, x: Tensor, axes: Tensor | None = None) -> Tensor:
    chosen = call.list("axes", axes)
    if not chosen and (call.get("noop_with_empty_axes", 0) or not x.ndim):
        chosen = []
        if x.ndim:  # over no axis at all: element by element
            return _REDUCTIONS[call.node.op](x.unsqueeze(-1), (-1,), False).to(x.dtype)
    keep = bool(call.get("keepdims", 1))
    return _REDUCTIONS[call.node.op](x, tuple(axes_of(chosen or None, x.ndim)), keep).to(x.dtype)


@function("ArgMax", "ArgMin")
def extreme_position(call: Call, x: Tensor) -> Tensor:
    axis, keep = call.get("axis", 0), bool(call.get("keepdims", 1))
    find = torch.argmax if call.node.op == "ArgMax" else torch.argmin
    if not call.get("select_last_index", 0):
        return find(x, axis, keep)
    return x.shape[axis] - 1 - find(x.flip(axis), axis, keep)


@function("CumSum")
def cumulative_sum(call: Call, x: Tensor, axis: Tensor) -> Tensor:
    along = int(axis)
    x = x.flip(along) if call.get("reverse", 0) else x
    total = x.cumsum(along).to(x.dtype)
    total = total - x if call.get("exclusive", 0) else total
    return total.flip(along) if call.get("reverse", 0) else total
