"""Windows of convolutions and pools over images: kernel, strides, pads, dilations, as the templates take them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from deburr.ir.node import Node
from deburr.targets.lower import dialect

Pair = tuple[int, int]


@dataclass(frozen=True)
class Window:
    """Rows before columns; pads are top, left, bottom, right."""

    kernel: Pair
    strides: Pair = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilations: Pair = (1, 1)


def convolution_window(node: Node) -> Window | str:
    """The window of Conv, or why the template does not fit."""
    data, weight = dialect.image_of(node.input(0)), node.input(1).static_shape
    if data is None or weight is None or len(weight) != 4 or len(node.input(0).shape or ()) != 4:
        return "only two-dimensional convolutions have a template"
    return _window(node, (weight[2], weight[3]))


def max_window(node: Node) -> Window | str:
    """The window of MaxPool or GlobalMaxPool. Rounding up is padding more: the maximum never sees padding."""
    shape, result = dialect.image_of(node.input(0)), dialect.image_of(node.output())
    if shape is None or result is None or (len(node.outputs) > 1 and node.outputs[1] is not None):
        return "only two-dimensional pooling without indices has a template"
    if node.op == "GlobalMaxPool":
        return Window((shape[2], shape[3]))
    window = _window(node, _pair(node, "kernel_shape"))
    if isinstance(window, str) or window.dilations != (1, 1):
        return window if isinstance(window, str) else "dilated pooling has no template"
    return _rounded_up(window, shape, result)


def average_window(node: Node) -> Window | str:
    """The window of AveragePool, GlobalAveragePool, or ReduceMean over height and width."""
    shape, result = dialect.image_of(node.input(0)), dialect.image_of(node.output())
    if shape is None or result is None or len(node.input(0).shape or ()) != 4:
        return "only two-dimensional pooling has a template"
    if node.op == "GlobalAveragePool":
        return Window((shape[2], shape[3]))
    if node.op == "ReduceMean":
        return Window((shape[2], shape[3])) if _axes(node) == {2, 3} else "only means over height and width have a template"
    window = _window(node, _pair(node, "kernel_shape"))
    if isinstance(window, str) or window.dilations != (1, 1):
        return window if isinstance(window, str) else "dilated pooling has no template"
    rounded = _rounded_up(window, shape, result)
    if rounded != window or (any(window.pads) and not node.get("count_include_pad", 0)):
        return "its windows at the border count fewer pixels"
    return window


def _axes(node: Node) -> set[int]:
    given = node.optional_input(1)
    axes = node.get("axes", ()) if given is None else ([] if given.array is None else given.array.tolist())
    return {int(axis) % 4 for axis in axes}


def _window(node: Node, kernel: Pair) -> Window | str:
    if node.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return "its padding is not explicit"
    pads = tuple(node.get("pads", (0, 0, 0, 0)))
    if node.get("auto_pad", "NOTSET") == "VALID":
        pads = (0, 0, 0, 0)
    if len(kernel) != 2 or len(pads) != 4 or min(pads) < 0:
        return "only two-dimensional windows have a template"
    return Window(kernel, _pair(node, "strides"), cast(tuple[int, int, int, int], pads), _pair(node, "dilations"))


def _pair(node: Node, attribute: str) -> Pair:
    return cast(Pair, tuple(node.get(attribute, (1, 1))))


def _rounded_up(window: Window, shape: tuple[int, ...], result: tuple[int, ...]) -> Window:
    """The window with the padding at the end that reaches as many windows as the result has (ceil_mode)."""
    pads = list(window.pads)
    for axis in (0, 1):
        reach = (result[2 + axis] - 1) * window.strides[axis] + window.kernel[axis]
        pads[2 + axis] += max(reach - shape[2 + axis] - pads[axis] - pads[2 + axis], 0)
    return Window(window.kernel, window.strides, cast(tuple[int, int, int, int], tuple(pads)), window.dilations)
