"""ConvTranspose is a convolution with an output channel for each phase of the stride, and a shuffle of these into pixels.

Along one axis, with stride s, output s q + r sums the inputs q - e with weights of index r + p + s e: few for each phase r, and
for all phases together a window that `_Axis` finds. No zero is ever put between pixels; taps that a phase has not are 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deburr.ir.graph import Graph
from deburr.ir.node import Node
from deburr.ir.types import Array, DType, TensorType
from deburr.ir.value import Value
from deburr.passes.core import Context
from deburr.targets.lower import dialect


@dataclass(frozen=True)
class _Axis:
    """One axis of the image: sizes, kernel, stride, padding at the front."""

    size: int
    result: int
    kernel: int
    stride: int
    pad: int

    @property
    def positions(self) -> int:
        """Outputs of one phase."""
        return -(-self.result // self.stride)

    @property
    def first(self) -> int:
        """The first input that any phase reads, relative to its output."""
        return -((self.kernel - 1 - self.pad) // self.stride)

    @property
    def taps(self) -> int:
        return (self.stride - 1 + self.pad) // self.stride - self.first + 1

    @property
    def pads(self) -> tuple[int, int]:
        """At the front and at the end; negative where the image is larger than what is read of it."""
        return -self.first, self.positions - 1 + self.taps - 1 + self.first - (self.size - 1)

    def tap(self, phase: int, index: int) -> int | None:
        """Which of the kernel's weights a phase has at a tap of the window."""
        weight = phase + self.pad - self.stride * (self.first + index)
        return weight if 0 <= weight < self.kernel else None


def rewrite(graph: Graph, context: Context) -> None:
    """Replace every ConvTranspose of images with constant weights; a remark says why not."""
    for node in list(graph.nodes):
        if dialect.is_onnx(node, "ConvTranspose"):
            reason = _rewrite(node)
            if reason:
                context.remark(node, f"{reason}: compiled by TVM's own converter")


def _rewrite(node: Node) -> str | None:
    axes = _axes(node)
    if isinstance(axes, str):
        return axes
    if any(pad < 0 for axis in axes for pad in axis.pads):
        return "it pads more than its kernel reaches"
    weight = _weight(node, axes)
    if weight is None:
        return "its weights are computed at run time"
    phases, group = axes[0].stride * axes[1].stride, int(node.get("group", 1))
    bias = node.optional_input(2)
    offset = None if bias is None else _tiled(node, bias, phases)
    if bias is not None and offset is None:
        return "its bias is computed at run time"
    (top, bottom), (left, right) = (axis.pads for axis in axes)
    graph, shape, dtype = node.owner, node.output().static_shape, node.output().dtype
    assert shape is not None
    attributes = {
        "kernel_shape": [axis.taps for axis in axes], "pads": [top, left, bottom, right], "group": group,
    }  # fmt: skip
    operands = [node.input(0), weight, *([] if offset is None else [offset])]
    conv = graph.add_node("Conv", operands, [f"{node.output().name}_phases"], attributes, name=node.name, before=node)
    sizes = (shape[0], phases * shape[1], axes[0].positions, axes[1].positions)
    graph.set_type(conv.output(), TensorType(dtype or DType.FLOAT, sizes))
    strides = tuple(axis.stride for axis in axes)
    made = dialect.build(
        "Shuffle", [conv.output()], TensorType(dtype or DType.FLOAT, shape), {"strides": strides, "groups": group}, like=node
    )
    dialect.replace(node, made)
    return None


def _axes(node: Node) -> list[_Axis] | str:
    data, result = node.input(0).static_shape, node.output().static_shape
    kernel = node.input(1).static_shape
    if data is None or result is None or kernel is None or len(data) != 4:
        return "only two-dimensional convolutions have a template"
    if any(step != 1 for step in node.get("dilations", ())):
        return "dilated transposed convolutions have no template"
    strides = node.get("strides", (1, 1))
    found = []
    for axis in (0, 1):
        size, extent, taps = data[2 + axis], result[2 + axis], kernel[2 + axis]
        pads = node.get("pads", (0, 0, 0, 0))
        if node.get("auto_pad", "NOTSET") != "NOTSET" or node.get("output_shape") is not None:
            return "its padding is not explicit"
        found.append(_Axis(size, extent, taps, int(strides[axis]), int(pads[axis])))
    return found


def _weight(node: Node, axes: list[_Axis]) -> Value | None:
    """The kernels of all phases; quantized ones keep their scales, for each phase again."""
    value, group = node.input(1), int(node.get("group", 1))
    if value.array is not None:
        return dialect.constant(node.owner, _phases(value.array, group, axes), f"{value.name}.phases")
    dequantize = value.producer
    if dequantize is None or not dialect.is_onnx(dequantize, "DequantizeLinear") or dequantize.get("block_size", 0):
        return None
    integers = dequantize.input(0).array
    steps = [None if operand is None else operand.array for operand in dequantize.inputs[1:]]
    if integers is None or any(step is None or step.ndim > 1 for step in steps) or any(_zero_points(steps[1:])):
        return None
    if any(step is not None and step.size > 1 for step in steps) and int(dequantize.get("axis", 1)) != 1:
        return None
    phases = axes[0].stride * axes[1].stride
    scales = [_for_phases(step, phases * group) for step in steps if step is not None]
    return _dequantized(node, value, [_phases(integers, group, axes), *scales])


def _zero_points(steps: list[Array | None]) -> list[bool]:
    return [step is not None and bool(np.any(step != 0)) for step in steps]


def _for_phases(step: Array, times: int) -> Array:
    """A scale for each channel of a group, for each channel of all groups and phases."""
    tiled: Array = step if step.size == 1 else np.tile(step, times)
    return tiled


def _phases(weight: Array, group: int, axes: list[_Axis]) -> Array:
    """[I, O/groups, kh, kw] -> [groups, phases, O/groups, ...] flattened: a group's outputs lie together, as Conv has them."""
    inputs, outputs = weight.shape[0] // group, weight.shape[1]
    height, width = axes
    made = np.zeros((group, height.stride, width.stride, outputs, inputs, height.taps, width.taps), weight.dtype)
    grouped = weight.reshape(group, inputs, outputs, *weight.shape[2:]).swapaxes(1, 2)
    for r, q in np.ndindex(height.stride, width.stride):
        for y, x in np.ndindex(height.taps, width.taps):
            row, column = height.tap(r, y), width.tap(q, x)
            if row is not None and column is not None:
                made[:, r, q, :, :, y, x] = grouped[..., row, column]
    return made.reshape(-1, inputs, height.taps, width.taps)


def _tiled(node: Node, bias: Value, phases: int) -> Value | None:
    """The bias of every channel, for each phase again."""
    group = int(node.get("group", 1))

    def tile(array: Array) -> Array:
        return np.repeat(array.reshape(group, 1, -1), phases, axis=1).reshape(-1) if array.size > 1 else array

    if bias.array is not None:
        return dialect.constant(node.owner, tile(bias.array), f"{bias.name}.phases")
    dequantize = bias.producer
    if dequantize is None or not dialect.is_onnx(dequantize, "DequantizeLinear"):
        return None
    arrays = [operand.array for operand in dequantize.inputs if operand is not None]
    known = [tile(array) for array in arrays if array is not None and array.ndim < 2]
    return _dequantized(node, bias, known) if len(known) == len(arrays) else None


def _dequantized(node: Node, like: Value, operands: list[Array]) -> Value:
    """DequantizeLinear of these constants along the first axis."""
    graph = node.owner
    inputs = [dialect.constant(graph, operand, f"{like.name}.phases") for operand in operands]
    made = graph.add_node("DequantizeLinear", inputs, [f"{like.name}_phases"], {"axis": 0}, before=node).output()
    graph.set_type(made, TensorType(DType.FLOAT, operands[0].shape))
    return made
