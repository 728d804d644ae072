"""Rounding that gradients pass through: what quantization leaves of a tensor, in float, with a scale that learns.

Esser et al. 2020, "Learned step size quantization" (LSQ): straight through for what lies inside the range, and a gradient for
the scale. The scale is learnt by its logarithm (Jain et al. 2020, "Trained quantization thresholds"): it stays positive, and
the same learning rate fits scales of every size.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from deburr.ir.types import DType, QParams
from deburr.passes.quantize.arithmetic import limits
from deburr.passes.recover.operators.table import Tensor


class FakeQuantize(torch.nn.Module):  # type: ignore[misc]
    """Rounds a tensor to the grid of some `QParams`, whose scale learns; everything else of them stays."""

    def __init__(self, qparams: QParams) -> None:
        super().__init__()
        self._start = qparams
        self.log_factor = torch.nn.Parameter(torch.zeros(qparams.scale.shape))
        self.register_buffer("_scale", torch.from_numpy(np.array(qparams.scale)), persistent=False)
        self.register_buffer("_zero", torch.from_numpy(np.array(qparams.zero_point, np.float32)), persistent=False)

    @property
    def scale(self) -> Tensor:
        """As learnt so far, in the shape of `QParams.scale`."""
        return self._scale * torch.exp(self.log_factor)

    @property
    def qparams(self) -> QParams:
        """With the scale as learnt so far."""
        return replace(self._start, scale=self.scale.detach().cpu().numpy().astype(np.float32))

    @property
    def has_blocks(self) -> bool:
        return self._start.block_size is not None

    def forward(self, x: Tensor) -> Tensor:
        factor, scale, zero = (self._along(one, x) for one in (self.log_factor, self.scale.detach(), self._zero))
        count = x.numel() / max(self.log_factor.numel(), 1)
        return _RoundTrip.apply(x, factor, scale, zero, (count, limits(self._start.dtype, self._start.bits)))

    def _along(self, parameter: Tensor, x: Tensor) -> Tensor:
        """A parameter, shaped to broadcast against `x`."""
        axis, block = self._start.axis, self._start.block_size
        if axis is None:
            return parameter
        if block is not None:
            return parameter.repeat_interleave(block, axis).narrow(axis, 0, x.shape[axis])
        return parameter.reshape([-1 if index == axis % x.ndim else 1 for index in range(x.ndim)])


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
    """Factor, scale and zero broadcast against `x`; `grid` is how many elements share a scale, and the integers' limits."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: Tensor, *rest: Any) -> Tensor:
        scale, zero, grid = rest
        ctx.save_for_backward(x, scale, zero)
        ctx.grid, ctx.shape = grid, factor.shape
        return (_integers(x, scale, zero, grid[1]) - zero) * scale

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, zero = ctx.saved_tensors
        count, bounds = ctx.grid
        ratio = x / scale
        inside = (ratio + zero >= bounds[0]) & (ratio + zero <= bounds[1])
        slope = _integers(x, scale, zero, bounds) - zero - ratio * inside
        # LSQ's step relative to the scale: gradient / sqrt(count * largest integer), over the scale.
        relative = gradient * slope / (scale * math.sqrt(count * bounds[1]))
        return gradient * inside, relative.sum_to_size(ctx.shape), None, None, None


def _integers(x: Tensor, scale: Tensor, zero: Tensor, bounds: tuple[int, int]) -> Tensor:
    """As ONNX rounds: half to even, then the zero point, then saturation."""
    return torch.clamp(torch.round(x / scale) + zero, *bounds)
