"""Rounding that gradients pass through: what quantization leaves of a tensor, in float, with a scale that learns.

Esser et al. 2020, "Learned step size quantization" (LSQ): straight through for what lies inside the range, and a gradient for
the scale. The scale is learnt by its logarithm (Jain et al. 2020, "Trained quantization thresholds"): it stays positive, and
the same learning rate fits scales of every size.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from deburr.ir.types import DType, QParams
from deburr.passes.quantize.arithmetic import limits
from deburr.passes.recover.operators.table import Tensor


class FakeQuantize(torch.nn.Module):  # type: ignore[misc]
    """Rounds a tensor to the grid of some `QParams`, whose scale learns; zero point, type and axis stay."""

    def __init__(self, qparams: QParams) -> None:
        super().__init__()
        self._start = qparams
        self.log_factor = torch.nn.Parameter(torch.zeros(qparams.scale.shape))
        self.register_buffer("_scale", torch.from_numpy(np.array(qparams.scale)), persistent=False)
        self.register_buffer("_zero", torch.from_numpy(np.array(qparams.zero_point, np.float32)), persistent=False)

    @property
    def scale(self) -> Tensor:
        """As learnt so far, [] or [channels]."""
        return self._scale * torch.exp(self.log_factor)

    @property
    def qparams(self) -> QParams:
        """With the scale as learnt so far."""
        scale = self.scale.detach().cpu().numpy().astype(np.float32)
        return QParams(scale, self._start.zero_point, self._start.dtype, self._start.axis)

    def forward(self, x: Tensor) -> Tensor:
        axis = self._start.axis
        shape = [] if axis is None else [-1 if index == axis else 1 for index in range(x.ndim)]
        scale, zero = self.scale.detach().reshape(shape), self._zero.reshape(shape)
        return _RoundTrip.apply(x, self.log_factor, scale, (zero, limits(self._start.dtype)))


class FakeBias:
    """Rounds a bias to 32 bits with the scale of data times weights; those do not learn from it."""

    def __init__(self, data: FakeQuantize, weights: FakeQuantize, channels: int) -> None:
        self._data, self._weights, self._channels = data, weights, channels

    def __call__(self, bias: Tensor) -> Tensor:
        with torch.no_grad():
            scale = (self._weights.scale * self._data.scale).reshape(-1)
            scale = scale.repeat(self._channels // scale.numel()).double()
            smallest, largest = limits(DType.INT32)
            rounded = (torch.round(bias.double() / scale).clamp(smallest, largest) * scale).to(bias.dtype)
        return bias + (rounded - bias).detach()


class _RoundTrip(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, x: Tensor, log_factor: Tensor, scale: Tensor, grid: tuple[Tensor, tuple[int, int]]) -> Tensor:
        zero, bounds = grid
        ctx.save_for_backward(x, scale, zero)
        ctx.bounds, ctx.shape = bounds, log_factor.shape
        return (_integers(x, scale, zero, bounds) - zero) * scale

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, zero = ctx.saved_tensors
        ratio = x / scale
        inside = (ratio + zero >= ctx.bounds[0]) & (ratio + zero <= ctx.bounds[1])
        passed = gradient * inside
        slope = _integers(x, scale, zero, ctx.bounds) - zero - ratio * inside
        count = x.numel() / max(scale.numel(), 1)
        # LSQ's step relative to the scale: gradient / sqrt(count * largest integer), over the scale.
        total = (gradient * slope).sum_to_size(scale.shape) if scale.ndim else (gradient * slope).sum()
        factor = total / scale / math.sqrt(count * ctx.bounds[1])
        return passed, factor.reshape(ctx.shape), None, None


def _integers(x: Tensor, scale: Tensor, zero: Tensor, bounds: tuple[int, int]) -> Tensor:
    """As ONNX rounds: half to even, then the zero point, then saturation."""
    return torch.clamp(torch.round(x / scale) + zero, *bounds)
