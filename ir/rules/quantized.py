"""Rules for a quantized graph: QuantizeLinear (Q) and DequantizeLinear (DQ) make sense together with what they stand on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from deburr.ir.node import Node
from deburr.ir.rules.core import Rule, Scope, Violation
from deburr.ir.types import Array, DType, QParams, Shape, TensorType
from deburr.ir.value import Value

BIAS_TOLERANCE = 1e-4  # relative: scale of an int32 bias against the product of the input's and the weight's


def _nodes(scope: Scope) -> Iterator[Node]:
    yield from (node for node in scope.nodes if node.op in ("QuantizeLinear", "DequantizeLinear") and len(node._inputs) > 1)


def _scales(scope: Scope) -> Iterator[Violation]:
    for node in _nodes(scope):
        scale = node.input(1).array
        if scale is not None and not (np.isfinite(scale.astype(np.float64)) & (scale.astype(np.float64) > 0)).all():
            yield Violation("its scale is zero, negative, infinite or not a number", node, node.input(1))


def _is_per_axis(node: Node) -> bool:
    scale = node.input(1).shape
    return scale is not None and len(scale) == 1 and scale != (1,) and not node.get("block_size", 0)


def _axes(scope: Scope) -> Iterator[Violation]:
    for node in _nodes(scope):
        shape, axis = node.input(0).shape, node.get("axis", 1)
        if shape is not None and _is_per_axis(node) and not -len(shape) <= axis < len(shape):
            yield Violation(f"axis {axis} is out of range for {node.input(0).type}", node)


def _sizes(scope: Scope) -> Iterator[Violation]:
    for node in _nodes(scope):
        shape, scale, axis = node.input(0).shape, node.input(1).shape, node.get("axis", 1)
        if shape is None or scale is None or not -len(shape) <= axis < len(shape):
            continue
        misfit = _misfit_blocks(scale, shape, axis, node.get("block_size", 0))
        if misfit:
            yield Violation(misfit, node)
        if not _is_per_axis(node):
            continue
        sizes = scale[0], shape[axis]
        if isinstance(sizes[0], int) and isinstance(sizes[1], int) and sizes[0] != sizes[1]:
            yield Violation(f"it has {sizes[0]} scales, axis {axis} of {node.input(0).type} has size {sizes[1]}", node)


def _zero_points(scope: Scope) -> Iterator[Violation]:
    for node in _nodes(scope):
        zero_point = node.optional_input(2)
        integers = node.outputs[0] if node.op == "QuantizeLinear" else node.input(0)
        if zero_point is None or integers is None:
            continue
        if None not in (zero_point.dtype, integers.dtype) and zero_point.dtype != integers.dtype:
            yield Violation(f"its zero point is {zero_point.dtype}, its integers are {integers.dtype}", node, zero_point)
        scale = node.input(1).static_shape
        if None not in (scale, zero_point.static_shape) and scale != zero_point.static_shape:
            yield Violation(f"its zero point is {zero_point.type}, its scale is {node.input(1).type}", node, zero_point)


def _biases(scope: Scope) -> Iterator[Violation]:
    for node in scope.nodes:
        if node.op not in ("Conv", "ConvTranspose", "Gemm") or len(node._inputs) < 3:
            continue
        data, weight, bias = (_dequantize(value) for value in node._inputs[:3])
        if bias is None or bias.input(0).dtype is not DType.INT32 or data is None or weight is None:
            continue
        if weight.get("block_size", 0):
            continue  # no accumulator has the scale of a bias
        yield from _bias(node, bias, data.input(1).array, weight.input(1).array)


def _bias(node: Node, bias: Node, data: Array | None, weight: Array | None) -> Iterator[Violation]:
    own, zero_point = bias.input(1).array, bias.optional_input(2)
    if zero_point is not None and zero_point.array is not None and zero_point.array.any():
        yield Violation("the zero point of its int32 bias is not 0", node, zero_point)
    if own is None or data is None or weight is None:
        return
    wanted = (data.astype(np.float64) * weight.astype(np.float64)).reshape(-1)
    given = own.astype(np.float64).reshape(-1)
    if given.size > 1 and wanted.size > 1 and given.size != wanted.size:
        yield Violation(f"its int32 bias has {given.size} scales, its weight has {wanted.size}", node, bias.input(1))
    elif not np.allclose(given, wanted, rtol=BIAS_TOLERANCE, atol=0):
        given, wanted = np.broadcast_arrays(given, wanted)
        with np.errstate(divide="ignore", invalid="ignore"):  # a scale of 0 breaks V301 as well
            worst = int(np.argmax(np.abs(given / wanted - 1)))
        message = f"the scale of its int32 bias is {given[worst]:.6g}, input times weight gives {wanted[worst]:.6g}"
        yield Violation(message, node, bias.input(1))


def _dequantize(value: Value | None) -> Node | None:
    node = None if value is None else value.producer
    return node if node is not None and node.op == "DequantizeLinear" and len(node._inputs) > 1 else None


def _qparams(scope: Scope) -> Iterator[Violation]:
    for value in scope.graph.values:
        if value.qparams is not None and isinstance(value.type, TensorType) and value.type.shape is not None:
            message = _misfit(value.qparams, value.type.shape)
            if message:
                yield Violation(message, value.producer, value)


def _misfit(qparams: QParams, shape: tuple[int | str | None, ...]) -> str:
    if qparams.axis is None:
        return ""
    if not -len(shape) <= qparams.axis < len(shape):
        return f"its quantization axis {qparams.axis} is out of range"
    if qparams.block_size is not None:
        return _misfit_blocks(qparams.scale.shape, shape, qparams.axis, qparams.block_size)
    size = shape[qparams.axis]
    if isinstance(size, int) and size != len(qparams.scale):
        return f"it has {len(qparams.scale)} scales, and axis {qparams.axis} has size {size}"
    return ""


def _misfit_blocks(scale: Shape, shape: Shape, axis: int, block_size: int) -> str:
    """Why scales of this shape are not one for each block (of 0: no blocks), or nothing."""
    if not block_size:
        return ""
    wanted, size = list(shape), shape[axis]
    wanted[axis] = -(-size // block_size) if isinstance(size, int) else None
    known = [isinstance(a, int) and isinstance(b, int) for a, b in zip(scale, wanted, strict=False)]
    fits = len(scale) == len(wanted) and all(scale[i] == wanted[i] for i, is_known in enumerate(known) if is_known)
    return "" if fits else f"its scales are {list(scale)}, blocks of {block_size} along axis {axis} need {wanted}"


QUANTIZED = (
    Rule("V301", "the scale of a Q or DQ is positive and finite", _scales),
    Rule("V302", "the axis of a Q or DQ lies in the rank of its input", _axes),
    Rule("V303", "a Q or DQ has one scale for each channel or block", _sizes),
    Rule("V304", "a zero point has the type of the integers and the dims of the scale", _zero_points),
    Rule("V305", "an int32 bias has the scale input times weight, and zero point 0", _biases),
    Rule("V306", "quantization parameters fit the value that they describe", _qparams),
)
