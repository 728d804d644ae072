"""Resize of images, to the nearest pixel or between two in each direction: tables of pixels and weights, computed here.

Between pixels of u8, weights are integers of `BITS` bits: sums are exact, and one multiplication follows, as in a convolution.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from deburr.ir.node import Node
from deburr.ir.types import Array, DType
from deburr.ir.value import Value
from deburr.targets.lower import dialect
from deburr.targets.lower.borders import scale_of
from deburr.targets.lower.epilogue import Output

Reals = npt.NDArray[np.float64]
BITS = 11  # twice that and 8 for the pixel fit 31

_POSITIONS: dict[str, Callable[[Reals, float, int, int], Reals]] = {
    "half_pixel": lambda at, scale, size, result: (at + 0.5) / scale - 0.5,
    "pytorch_half_pixel": lambda at, scale, size, result: (at + 0.5) / scale - 0.5 if result > 1 else at * 0,
    "align_corners": lambda at, scale, size, result: at * (size - 1) / (result - 1) if result > 1 else at * 0,
    "asymmetric": lambda at, scale, size, result: at / scale,
}
_NEAREST: dict[str, Callable[[Reals], Reals]] = {
    "round_prefer_floor": lambda at: np.ceil(at - 0.5), "round_prefer_ceil": lambda at: np.floor(at + 0.5),
    "floor": np.floor, "ceil": np.ceil,
}  # fmt: skip


@dataclass(frozen=True)
class _Sampling:
    """Where the pixels of the result lie among those of the image, rows and columns."""

    mode: str
    sizes: tuple[int, int]
    positions: tuple[Reals, Reals]
    nearest: str


def nearest(node: Node, data: Value) -> Value | None:
    """Resize to the nearest pixel, whatever the type of `data`; None where it is another, or has no template."""
    found = _sampling(node)
    if isinstance(found, str) or found.mode != "nearest" or data.dtype is None:
        return None
    tables: list[Array] = []
    for size, at in zip(found.sizes, found.positions, strict=True):
        # Positions that are whole in exact arithmetic are not to fall below.
        whole = _NEAREST[found.nearest](np.round(at, 6))
        tables.append(np.clip(whole, 0, size - 1).astype(np.int32))
    return _build(node, data, data.dtype, tables, {})


def linear(node: Node, out: Output) -> Value | str:
    """The rule for quantized images."""
    scale, found = scale_of(node.input(0)), _sampling(node)
    if scale is None or out.scale is None:
        return "its data or result is not quantized"
    if isinstance(found, str):
        return found
    if found.mode != "linear":
        return "its data is not quantized with one scale"
    assert node.input(0).producer is not None
    step = np.float32(scale.scale / (np.float64(out.scale.scale) * 2.0 ** (2 * BITS)))
    attributes = {"data_zero_point": scale.zero_point, "multiplier": float(step), "requantize": out.requantize}
    integers = node.input(0).producer.input(0)  # type: ignore[union-attr]
    return _build(node, integers, DType.UINT8, _tables(found, integer=True), attributes, name=out.value.name)


def real(node: Node) -> Value | str | None:
    """Float32 images."""
    found = _sampling(node)
    if isinstance(found, str):
        return found
    if found.mode == "nearest":
        return nearest(node, node.input(0))
    return _build(node, node.input(0), DType.FLOAT, _tables(found, integer=False), {})


def _tables(found: _Sampling, *, integer: bool) -> list[Array]:
    """For rows, then columns: the two pixels [2, size], and the weight of the second [size]."""
    tables: list[Array] = []
    for size, at in zip(found.sizes, found.positions, strict=True):
        bounded = np.clip(at, 0, size - 1)
        first = np.floor(bounded)
        pixels = np.stack([first, np.minimum(first + 1, size - 1)]).astype(np.int32)
        weight = bounded - first
        tables += [pixels, np.rint(weight * 2**BITS).astype(np.int32) if integer else weight.astype(np.float32)]
    return tables


def _sampling(node: Node) -> _Sampling | str:
    shape, result = node.input(0).static_shape, node.output().static_shape
    mode, transform = node.get("mode", "nearest"), node.get("coordinate_transformation_mode", "half_pixel")
    if shape is None or result is None or len(shape) != 4 or shape[:2] != result[:2]:
        return "only the resizing of images has a template"
    plain = not node.get("antialias", 0) and node.get("keep_aspect_ratio_policy", "stretch") == "stretch"
    if mode not in ("nearest", "linear") or transform not in _POSITIONS or not plain or node.get("axes") is not None:
        return "this way of resizing has no template"
    scales = node.optional_input(2)
    if scales is not None and scales.array is None:
        return "its scales are computed at run time"
    given = None if scales is None or scales.array is None or scales.array.size != 4 else scales.array
    positions = []
    for axis in (2, 3):
        scale = float(given[axis]) if given is not None else result[axis] / shape[axis]
        at = np.arange(result[axis], dtype=np.float64)
        positions.append(_POSITIONS[transform](at, scale, shape[axis], result[axis]))
    kind = node.get("nearest_mode", "round_prefer_floor")
    return _Sampling(mode, shape[2:], (positions[0], positions[1]), kind)


def _build(node: Node, data: Value, dtype: DType, tables: list[Array], attributes: dict[str, Any], *, name: str = "") -> Value:
    constants = [dialect.constant(node.owner, table, f"{node.output().name}.table") for table in tables]
    made = dialect.with_dtype(node.output(), dtype)
    return dialect.build("Resize", [data, *constants], made, attributes, like=node, name=name)
