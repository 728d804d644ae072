"""Normalizations by statistics along some axes, and softmax."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from deburr.passes.recover.operators.table import Call, Tensor, Uncovered, function


@function("BatchNormalization")
def batch_normalization(call: Call, x: Tensor, *statistics: Tensor) -> Tensor:
    """With the statistics that the model holds: they stay as they are while scale and shift train."""
    if call.get("training_mode", 0) or call.outputs > 1:
        raise Uncovered("it takes its statistics from the batch")
    scale, shift, mean, variance = statistics
    return functional.batch_norm(x, mean, variance, scale, shift, training=False, eps=call.get("epsilon", 1e-5))


@function("InstanceNormalization")
def instance_normalization(call: Call, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return functional.instance_norm(x, weight=scale, bias=shift, eps=call.get("epsilon", 1e-5))


@function("LayerNormalization")
def layer_normalization(call: Call, x: Tensor, scale: Tensor, shift: Tensor | None = None) -> Any:
    axis, epsilon = call.get("axis", -1) % x.ndim, call.get("epsilon", 1e-5)
    shape = x.shape[axis:]
    if call.outputs == 1 and scale.shape == shape and (shift is None or shift.shape == shape):
        return functional.layer_norm(x, shape, scale, shift, epsilon)
    axes = tuple(range(axis, x.ndim))
    mean = x.mean(axes, keepdim=True)
    inverse = torch.rsqrt((x - mean).square().mean(axes, keepdim=True) + epsilon)
    normal = (x - mean) * inverse * scale
    normal = normal if shift is None else normal + shift
    return (normal, mean, inverse)[: call.outputs] if call.outputs > 1 else normal


@function("RMSNormalization")
def rms_normalization(call: Call, x: Tensor, scale: Tensor) -> Tensor:
    shape = x.shape[call.get("axis", -1) % x.ndim :]
    return functional.rms_norm(x, shape, eps=call.get("epsilon", 1e-5)) * scale


@function("GroupNormalization")
def group_normalization(call: Call, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Scale and shift are a number for each group before opset 21, for each channel since."""
    groups = call.get("num_groups")
    if len(scale) != x.shape[1]:
        scale, shift = (one.repeat_interleave(x.shape[1] // groups) for one in (scale, shift))
    return functional.group_norm(x, groups, scale, shift, call.get("epsilon", 1e-5))


@function("LpNormalization")
def lp_normalization(call: Call, x: Tensor) -> Tensor:
    size = torch.linalg.vector_norm(x, call.get("p", 2), call.get("axis", -1), keepdim=True)
    return torch.where(size == 0, torch.zeros_like(x), x / torch.where(size == 0, torch.ones_like(size), size))


@function("LRN")
def local_response_normalization(call: Call, x: Tensor) -> Tensor:
    size = call.get("size")
    squares = functional.pad(x.square().movedim(1, -1), ((size - 1) // 2, size // 2))
    total = squares.unfold(-1, size, 1).sum(-1).movedim(-1, 1)
    return x / (call.get("bias", 1.0) + call.get("alpha", 1e-4) / size * total) ** call.get("beta", 0.75)


@function("Softmax")
def softmax(call: Call, x: Tensor) -> Tensor:
    return _along_axis(call, x, torch.softmax)


@function("LogSoftmax")
def log_softmax(call: Call, x: Tensor) -> Tensor:
    return _along_axis(call, x, torch.log_softmax)


def _along_axis(call: Call, x: Tensor, made: Any) -> Tensor:
    """Before opset 13, over all axes from `axis` on, taken as one."""
    if call.opset >= 13:
        return made(x, call.get("axis", -1))
    axis = call.get("axis", 1) % x.ndim
    return made(x.flatten(axis), -1).reshape(x.shape) if axis < x.ndim else made(x, -1)
