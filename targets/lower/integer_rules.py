"""One rule per operator: from `Dequantize`d operands to an integer operator, or the reason why not.

Multipliers of convolutions and factors of sums are chosen so that the integers are those of ONNX Runtime's integer kernels;
other factors are rounded once, from float64: see the integer arithmetic in kernels/workload.py.
"""

from __future__ import annotations

from dataclasses import astuple

import numpy as np

from deburr.ir.errors import DeburrError
from deburr.ir.node import Node
from deburr.ir.types import Array, DType
from deburr.ir.value import Value
from deburr.targets.kernels.pack import fold_zero_point
from deburr.targets.lower import dialect, lookup
from deburr.targets.lower.borders import ChannelScale, Scale, in_blocks, quantized_weight, scale_of
from deburr.targets.lower.epilogue import Output
from deburr.targets.lower.fixed_point import fit
from deburr.targets.lower.windows import Window, average_window, convolution_window


def conv(node: Node, out: Output) -> Value | str:
    """Conv of two dimensions, grouped and depthwise too."""
    scale, weight = scale_of(node.input(0)), quantized_weight(node.input(1))
    window = convolution_window(node)
    if in_blocks(node.input(1)):
        return "its weights have scales in blocks"
    if scale is None or weight is None or weight.integers.dtype != np.int8:
        return "its data or weights are not quantized, or the weights have a zero point"
    if isinstance(window, str):
        return window
    if weight.axis != 0 and weight.scale.size > 1:
        return "the scales of its weights do not lie along the output channels"
    return _convolution(node, out, weight, window, int(node.get("group", 1)))


def gemm(node: Node, out: Output) -> Value | str:
    """Gemm or MatMul by a constant matrix: a convolution of 1x1, or of the whole image where a Flatten stands before it."""
    scale, weight = scale_of(node.input(0)), quantized_weight(node.input(1))
    if in_blocks(node.input(1)):
        return "its weights have scales in blocks"
    if scale is None or weight is None or weight.integers.dtype != np.int8 or weight.integers.ndim != 2:
        return "its data or weights are not quantized, or the weights have a zero point"
    if node.get("transA", 0) or len(node.input(0).shape or ()) != 2:
        return "its data is not a plain matrix"
    transposed = bool(node.get("transB", 0)) and node.op == "Gemm"
    if weight.scale.size > 1 and weight.axis != (0 if transposed else 1):
        return "the scales of its weights do not lie along the output channels"
    matrix = weight.integers if transposed else weight.integers.T
    alpha = np.float32(node.get("alpha", 1.0))
    if not alpha > 0:
        return "its alpha is not positive"
    rows = ChannelScale(matrix[:, :, None, None], weight.scale.astype(np.float32) * alpha, 0)
    return _convolution(node, out, rows, Window((1, 1)), 1)


def add(node: Node, out: Output) -> Value | str:
    """Add of two images of one shape."""
    a, b = scale_of(node.input(0)), scale_of(node.input(1))
    if a is None or b is None or out.scale is None:
        return "an operand is not quantized"
    if node.input(0).static_shape != node.input(1).static_shape or node.input(0).static_shape is None:
        return "its operands have two shapes"
    attributes = {"add": astuple(fit(a, b, out.scale, out.bounds.quantized(out.scale)))}
    operands = [_integers(node.input(0)), _integers(node.input(1))]
    return dialect.build(
        "Add", operands, dialect.with_dtype(out.value, DType.UINT8), attributes, like=node, name=out.value.name
    )


def average_pool(node: Node, out: Output) -> Value | str:
    """AveragePool, GlobalAveragePool, and ReduceMean over height and width."""
    scale, window = scale_of(node.input(0)), average_window(node)
    if scale is None or out.scale is None:
        return "its data or result is not quantized"
    if isinstance(window, str):
        return window
    step = scale.scale / (out.scale.scale * window.kernel[0] * window.kernel[1])
    attributes = {
        "kind": "average", "kernel": window.kernel, "strides": window.strides, "pads": window.pads,
        "data_zero_point": scale.zero_point, "multiplier": float(np.float32(step)), "requantize": out.requantize,
    }  # fmt: skip
    made = dialect.with_dtype(out.value, DType.UINT8)
    return dialect.build("Pool2d", [_integers(node.input(0))], made, attributes, like=node, name=out.value.name)


def concat(node: Node, out: Output) -> Value | str:
    """Concat along the channels; inputs of another scale are brought to the output's by a table."""
    scales = [scale_of(value) for value in node.inputs if value is not None]
    shape = out.value.static_shape
    if out.scale is None or shape is None or len(shape) != 4 or int(node.get("axis", 0)) % 4 != 1 or None in scales:
        return "it does not join quantized images along the channels"
    parts = [lookup.requantized(node.input(index), out) for index in range(len(scales))]
    channels = {"in_channels": [(dialect.image_of(part) or (0, 0))[1] for part in parts]}
    return dialect.build("Concat", parts, dialect.with_dtype(out.value, DType.UINT8), channels, like=node, name=out.value.name)


def _convolution(node: Node, out: Output, weight: ChannelScale, window: Window, groups: int) -> Value | str:
    scale = scale_of(node.input(0))
    assert scale is not None
    channels = len(weight.integers)
    steps = np.broadcast_to(np.float64(scale.scale) * weight.scale.astype(np.float64), (channels,))
    bias = _bias(node, steps)
    if bias is None:
        return "its bias is no constant per output channel that fits 32 bits"
    try:
        fold_zero_point(weight.integers, bias, scale.zero_point)
    except DeburrError as error:
        return error.why
    integers, kernel = _unflattened(_integers(node.input(0)), weight.integers)
    graph, stem = node.owner, node.name or out.value.name
    operands = [
        integers,
        dialect.constant(graph, kernel, f"{stem}.weight"),
        dialect.constant(graph, bias.astype(np.int32), f"{stem}.bias"),
        dialect.constant(graph, _multiplier(scale, weight, out), f"{stem}.multiplier"),
    ]
    attributes = {
        "kernel": tuple(kernel.shape[2:]), "strides": window.strides, "pads": window.pads, "dilations": window.dilations,
        "groups": groups, "data_zero_point": scale.zero_point, "requantize": out.requantize,
    }  # fmt: skip
    made = dialect.with_dtype(out.value, DType.FLOAT if out.scale is None else DType.UINT8)
    return dialect.build("Conv2d", operands, made, attributes, like=node, name=out.value.name)


def _multiplier(data: Scale, weight: ChannelScale, out: Output) -> Array:
    """From accumulator to output steps, float32 [channels]: a product and a quotient in float32, as ONNX Runtime's QLinearConv.

    One rounding instead of two would be nearer to the real quotient by 2**-24 of it, and now and then decide a tie otherwise.
    """
    products = np.float32(data.scale) * weight.scale.astype(np.float32)
    multiplier: Array = np.broadcast_to(products / out.real_scale, (len(weight.integers),))
    return multiplier


def _bias(node: Node, steps: Array) -> Array | None:
    """The bias in accumulator steps, int64 [channels]: the model's own integers where their scale is the accumulator's."""
    value = node.optional_input(2)
    if value is None:
        return np.zeros(steps.shape, np.int64)
    beta = float(node.get("beta", 1.0))
    stored = quantized_weight(value)
    if stored is not None and stored.integers.dtype == np.int32 and beta == 1 and stored.integers.size == steps.size:
        if np.allclose(stored.scale, steps, rtol=1e-5, atol=0):
            return stored.integers.reshape(-1).astype(np.int64)
        real: Array | None = stored.integers.reshape(-1) * stored.scale.astype(np.float64)
    else:
        real = value.array
    if real is None or real.size not in (1, steps.size) or (real.ndim > 1 and real.shape[-1] != real.size):
        return None
    bias: Array = np.rint(np.broadcast_to(real.reshape(-1), steps.shape).astype(np.float64) * beta / steps.astype(np.float64))
    return bias.astype(np.int64) if np.all(np.abs(bias) < 2**31) else None


def _unflattened(integers: Value, weight: Array) -> tuple[Value, Array]:
    """Behind a Flatten of an image: the image itself, and the matrix as kernels of its size."""
    node = integers.producer
    source = None if node is None or not dialect.is_onnx(node, "Flatten", "Reshape") else node.input(0)
    shape = None if source is None else dialect.image_of(source)
    if source is None or shape is None or integers.static_shape != (shape[0], weight.shape[1]):
        return integers, weight
    return source, weight.reshape(len(weight), *shape[1:])


def _integers(value: Value) -> Value:
    """What a `Dequantize`d value was made from."""
    assert value.producer is not None
    return value.producer.input(0)
