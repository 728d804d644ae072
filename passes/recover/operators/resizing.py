"""Interpolation: nearest and linear, as far as torch places the samples where ONNX does."""

from __future__ import annotations

from typing import Any

import torch

from deburr.passes.recover.operators.table import Call, Tensor, Uncovered, function


@function("Resize")
def resize(
    call: Call, x: Tensor, region: Tensor | None = None, scales: Tensor | None = None, sizes: Tensor | None = None
) -> Tensor:
    """Axis by axis: each output position is a weighted sum of one or two input positions."""
    mode, transform = _word(call, "mode", "nearest"), _word(call, "coordinate_transformation_mode", "half_pixel")
    if mode not in ("nearest", "linear") or call.get("antialias", 0):
        raise Uncovered(f"it interpolates in mode {mode}, or against aliasing")
    if _word(call, "keep_aspect_ratio_policy", "stretch") != "stretch":
        raise Uncovered("its sizes follow from a policy")
    if call.opset < 11 or transform not in _PLACES:
        raise Uncovered(f"it places samples in mode {transform}")
    axes = [axis % x.ndim for axis in call.list("axes") or range(x.ndim)]
    wanted = call.list("sizes", sizes) if sizes is not None and sizes.numel() else None
    factors = scales.tolist() if wanted is None and scales is not None else None
    for index, axis in enumerate(axes):
        size = x.shape[axis]
        length = wanted[index] if wanted is not None else int(size * factors[index]) if factors is not None else size
        scale = length / size if factors is None else factors[index]
        if length != size or scale != 1:
            x = _resized(call, x, axis, (length, scale))
    return x


_PLACES: dict[str, Any] = {
    "half_pixel": lambda x, scale, size, length: (x + 0.5) / scale - 0.5,
    "pytorch_half_pixel": lambda x, scale, size, length: (x + 0.5) / scale - 0.5 if length > 1 else x * 0,
    "align_corners": lambda x, scale, size, length: x * (size - 1) / (scale * size - 1) if length > 1 else x * 0,
    "asymmetric": lambda x, scale, size, length: x / scale,
}
_ROUNDED: dict[str, Any] = {
    "round_prefer_floor": lambda x: torch.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: torch.floor(x + 0.5),
    "floor": torch.floor,
    "ceil": torch.ceil,
}


def _resized(call: Call, x: Tensor, axis: int, target: tuple[int, float]) -> Tensor:
    """:param target: length of the axis, and the factor that it is to grow by."""
    size, (length, scale) = x.shape[axis], target
    place = _PLACES[_word(call, "coordinate_transformation_mode", "half_pixel")]
    positions = place(torch.arange(length, dtype=torch.float32), scale, size, length)
    if _word(call, "mode", "nearest") == "nearest":
        nearest = _ROUNDED[_word(call, "nearest_mode", "round_prefer_floor")](positions)
        return x.index_select(axis, nearest.clamp(0, size - 1).to(torch.int64))
    low = torch.floor(positions)
    shape = [-1 if index == axis else 1 for index in range(x.ndim)]
    share = (positions - low).reshape(shape).to(x.dtype)
    first, second = (x.index_select(axis, one.clamp(0, size - 1).to(torch.int64)) for one in (low, low + 1))
    return first * (1 - share) + second * share


def _word(call: Call, name: str, default: str) -> str:
    value = call.get(name, default)
    return value.decode() if isinstance(value, bytes) else str(value)
