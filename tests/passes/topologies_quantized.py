"""Models that are quantized already: integers behind DequantizeLinear, activations between QuantizeLinear and it.

Scales are powers of two, so that sums are exact in float32 and no result depends on the order of the additions.
"""

from __future__ import annotations

import numpy as np
from models import Builder

from .topologies import Made, _constant, _relu


def _activation(b: Builder, x: str, zero: int = 3) -> str:
    parameters = b.constant(np.float32(2**-4)), b.constant(np.uint8(zero))
    return b.node("DequantizeLinear", [b.node("QuantizeLinear", [x, *parameters]), *parameters])


def _scales(b: Builder, count: int) -> str:
    return b.constant((2.0 ** b.random.integers(-8, -4, count)).astype(np.float32))


def _weight(b: Builder, *shape: int, axis: int = 0, zero_point: bool = True) -> str:
    """int8 with a scale and a zero point for each index of `axis`, or without zero points."""
    stored = b.constant(b.random.integers(-90, 90, shape).astype(np.int8))
    zero = [b.constant(b.random.integers(-9, 9, shape[axis]).astype(np.int8))] if zero_point else []
    return b.node("DequantizeLinear", [stored, _scales(b, shape[axis]), *zero], axis=axis)


def _bias(b: Builder, count: int) -> str:
    stored = b.constant(b.random.integers(-3000, 3000, count).astype(np.int32))
    return b.node("DequantizeLinear", [stored, b.constant(np.full(count, 2**-12, np.float32))], axis=0)


def _conv(b: Builder, x: str, before: int, after: int, kernel: int = 3, **attributes: object) -> str:
    weight = _weight(b, after, before // int(attributes.get("group", 1)), kernel, kernel)
    return b.node("Conv", [x, weight, _bias(b, after)], pads=[kernel // 2] * 4, **attributes)


def quantized_activations(b: Builder, x: str) -> Made:
    return _relu(b, b.conv(_activation(b, _relu(b, b.conv(x, 3, 8))), 8, 6)), 6


def quantized_per_channel(b: Builder, x: str) -> Made:
    """Activations with a scale for each channel."""
    parameters = _scales(b, 8), b.constant(np.zeros(8, np.uint8))
    x = b.node("QuantizeLinear", [_relu(b, b.conv(x, 3, 8)), *parameters], axis=1)
    return b.node("DequantizeLinear", [x, *parameters], axis=1), 8


def quantized_residual(b: Builder, x: str) -> Made:
    """int8 weights, int32 biases, a projection, a grouped and a depthwise convolution, as quantizers write them."""
    stem = _activation(b, _relu(b, _conv(b, _activation(b, x), 3, 12)))
    main = _activation(b, _relu(b, _conv(b, stem, 12, 8, group=2)))
    main = _activation(b, _relu(b, _conv(b, main, 8, 8, group=8)), 0)
    side = _activation(b, _conv(b, stem, 12, 8, 1), 7)
    return _activation(b, _relu(b, b.node("Add", [main, side]))), 8


def quantized_products(b: Builder, x: str) -> Made:
    """Gemm, MatMul and ConvTranspose have their output channels on other axes; a constant operand is quantized too."""
    x = b.node("GlobalAveragePool", [_activation(b, _relu(b, _conv(b, x, 3, 8)))])
    x = _activation(b, b.node("Flatten", [x]))
    x = _activation(b, _relu(b, b.node("Gemm", [x, _weight(b, 10, 8), _bias(b, 10)], transB=1)))
    x = _activation(b, _relu(b, b.node("MatMul", [x, _weight(b, 10, 36, axis=1, zero_point=False)])))
    x = b.node("Mul", [b.node("Reshape", [x, _constant(b, 0, 4, 3, 3)]), _weight(b, 4, 1, 1)])
    x = b.node("ConvTranspose", [_activation(b, x), _weight(b, 4, 6, 2, 2, axis=1)], strides=[2, 2])
    return _activation(b, _relu(b, x)), 6


def quantized_in_the_graph(b: Builder, x: str) -> Made:
    """Weights that are still float and are rounded where they are read, as training with quantization leaves them."""
    x = _relu(b, b.conv(x, 3, 8))
    parameters = b.constant((b.random.uniform(0.01, 0.02, 6)).astype(np.float32)), b.constant(np.zeros(6, np.int8))
    weight = b.node("QuantizeLinear", [b.weight(6, 8, 3, 3), *parameters], axis=0)
    weight = b.node("DequantizeLinear", [weight, *parameters], axis=0)
    return _relu(b, b.node("Conv", [x, weight], pads=[1] * 4)), 6


def quantized_shared(b: Builder, x: str) -> Made:
    """One dequantized matrix with two readers, and its integers with a third; one dequantized bias for two groups."""
    stored, scale = b.constant(b.random.integers(-90, 90, (6, 6, 3, 3)).astype(np.int8)), _scales(b, 6)
    once, again = (b.node("DequantizeLinear", [stored, scale], axis=0) for _ in range(2))
    bias, x = _bias(b, 6), _activation(b, _relu(b, b.conv(x, 3, 6)))
    for weight in (once, again, once):
        x = _activation(b, _relu(b, b.node("Conv", [x, weight, bias], pads=[1] * 4)))
    return _activation(b, _relu(b, b.node("Conv", [x, _weight(b, 6, 6, 1, 1), bias]))), 6


PRUNABLE = {
    made.__name__: made
    for made in (
        quantized_activations, quantized_per_channel, quantized_residual, quantized_products, quantized_in_the_graph,
        quantized_shared,
    )
}  # fmt: skip


def quantized_by_a_computed_scale(b: Builder, x: str) -> Made:
    """A scale for each channel that depends on the input."""
    x = _relu(b, b.conv(x, 3, 8))
    scale = b.node("ReduceMax", [b.node("Abs", [x])], axes=[0, 2, 3], keepdims=0)
    return b.node("DequantizeLinear", [b.node("QuantizeLinear", [x, scale], axis=1), scale], axis=1), 8
