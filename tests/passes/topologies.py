"""One function for each way in which channels can be wired: it adds nodes and gives a tensor and its number of channels."""

from __future__ import annotations

import numpy as np
from models import Builder

Made = tuple[str, int]


def _constant(builder: Builder, *numbers: int) -> str:
    return builder.constant(np.array(numbers, np.int64))


def _relu(builder: Builder, x: str) -> str:
    return builder.node("Relu", [x])


def chain(b: Builder, x: str) -> Made:
    for before, after in ((3, 8), (8, 12), (12, 6)):
        x = _relu(b, b.batch_norm(b.conv(x, before, after), after))
    return x, 6


def residual(b: Builder, x: str) -> Made:
    stem = _relu(b, b.conv(x, 3, 8))
    inner = _relu(b, b.batch_norm(b.conv(stem, 8, 12), 12))
    return _relu(b, b.node("Add", [b.conv(inner, 12, 8), stem])), 8


def residual_projection(b: Builder, x: str) -> Made:
    stem = _relu(b, b.conv(x, 3, 6))
    main = b.conv(_relu(b, b.conv(stem, 6, 8, strides=[2, 2])), 8, 10)
    return _relu(b, b.node("Add", [main, b.conv(stem, 6, 10, 1, strides=[2, 2])])), 10


def pre_activation_stage(b: Builder, x: str) -> Made:
    x = b.conv(x, 3, 8)
    for _ in range(3):
        inner = b.conv(_relu(b, b.batch_norm(x, 8)), 8, 6)
        x = b.node("Add", [x, b.conv(_relu(b, b.batch_norm(inner, 6)), 6, 8)])
    return x, 8


def dense(b: Builder, x: str) -> Made:
    x, width = _relu(b, b.conv(x, 3, 6)), 6
    for _ in range(3):
        new = b.conv(_relu(b, b.batch_norm(x, width)), width, 4)
        x, width = b.node("Concat", [x, new], axis=1), width + 4
    return x, width


def added_concats(b: Builder, x: str) -> Made:
    left = b.node("Concat", [b.conv(x, 3, 4), b.conv(x, 3, 6)], axis=1)
    right = b.node("Concat", [b.conv(x, 3, 5), b.conv(x, 3, 5)], axis=1)
    return _relu(b, b.node("Add", [left, right])), 10


def concat_with_input(b: Builder, x: str) -> Made:
    return b.node("Concat", [x, _relu(b, b.conv(x, 3, 6))], axis=1), 9


def concat_along_height(b: Builder, x: str) -> Made:
    return b.node("Concat", [_relu(b, b.conv(x, 3, 6)), b.conv(x, 3, 6)], axis=2), 6


def depthwise(b: Builder, x: str) -> Made:
    x = _relu(b, b.conv(x, 3, 8, 1))
    return _relu(b, b.batch_norm(b.conv(x, 8, 8, group=8), 8)), 8


def depthwise_multiplier(b: Builder, x: str) -> Made:
    return _relu(b, b.conv(_relu(b, b.conv(x, 3, 6, 1)), 6, 12, group=6)), 12


def grouped(b: Builder, x: str) -> Made:
    return _relu(b, b.conv(_relu(b, b.conv(x, 3, 12)), 12, 8, group=4)), 8


def two_group_counts(b: Builder, x: str) -> Made:
    x = _relu(b, b.conv(x, 3, 24))
    return b.node("Add", [b.conv(x, 24, 12, group=2), b.conv(x, 24, 12, group=3)]), 12


def transposed(b: Builder, x: str) -> Made:
    x = _relu(b, b.conv(x, 3, 8))
    up = b.node("ConvTranspose", [x, b.weight(8, 6, 2, 2), b.weight(6, scale=0.1)], strides=[2, 2])
    small = b.node("ConvTranspose", [_relu(b, up), b.weight(6, 1, 3, 3)], group=6, pads=[1] * 4, output_padding=[0, 0])
    return b.node("ConvTranspose", [small, b.weight(6, 4, 2, 2)], group=2), 8


def shuffle(b: Builder, x: str) -> Made:
    x = _relu(b, b.conv(x, 3, 12))
    x = b.node("Reshape", [x, _constant(b, 0, 3, 4, 6, 6)])
    x = b.node("Reshape", [b.node("Transpose", [x], perm=[0, 2, 1, 3, 4]), _constant(b, -1, 12, 6, 6)])
    return _relu(b, b.conv(x, 12, 12, group=12)), 12


def depth_to_space(b: Builder, x: str) -> Made:
    x = b.node("DepthToSpace", [b.conv(x, 3, 16)], blocksize=2, mode="DCR")
    x = b.node("DepthToSpace", [b.conv(x, 4, 12)], blocksize=2, mode="CRD")
    return b.node("SpaceToDepth", [x], blocksize=2), 12


def decomposed_pixel_shuffle(b: Builder, x: str) -> Made:
    x = b.node("Reshape", [b.conv(x, 3, 16), _constant(b, 0, 4, 2, 2, 6, 6)])
    x = b.node("Transpose", [x], perm=[0, 1, 4, 2, 5, 3])
    return b.node("Reshape", [x, _constant(b, 0, 4, 12, 12)]), 4


def squeeze_excitation(b: Builder, x: str) -> Made:
    x = _relu(b, b.conv(x, 3, 8))
    gate = _relu(b, b.conv(b.node("GlobalAveragePool", [x]), 8, 4, 1))
    return b.node("Mul", [x, b.node("Sigmoid", [b.conv(gate, 4, 8, 1)])]), 8


def squeeze_excitation_gemm(b: Builder, x: str) -> Made:
    x = _relu(b, b.conv(x, 3, 8))
    gate = b.node("Flatten", [b.node("ReduceMean", [x], axes=[2, 3])])
    gate = b.node("Sigmoid", [b.gemm(_relu(b, b.gemm(gate, 8, 4)), 4, 8)])
    return b.node("Mul", [x, b.node("Reshape", [gate, _constant(b, 0, 8, 1, 1)])]), 8


def spatial_gate(b: Builder, x: str) -> Made:
    x = _relu(b, b.conv(x, 3, 8))
    return b.node("Mul", [b.node("Sigmoid", [b.conv(x, 8, 1)]), x]), 8


def constants_of_every_rank(b: Builder, x: str) -> Made:
    x = b.conv(x, 3, 8)
    x = b.node("PRelu", [x, b.weight(8, 1, 1)])
    x = b.node("Mul", [b.weight(1, 8, 1, 1), x])
    return b.node("Add", [b.node("Mul", [x, b.weight(1)]), b.weight(8, 6, 6)]), 8


def channels_last(b: Builder, x: str) -> Made:
    x = b.node("Transpose", [_relu(b, b.conv(x, 3, 8))], perm=[0, 2, 3, 1])
    x = b.node("Add", [b.node("MatMul", [x, b.weight(8, 10)]), b.weight(10)])
    return b.node("Transpose", [b.node("Softplus", [x])], perm=[0, 3, 1, 2]), 10


def chunks(b: Builder, x: str) -> Made:
    x = _relu(b, b.conv(x, 3, 12))
    names = [f"{x}_part{index}" for index in range(3)]
    b.nodes.append(_many("Split", [x, _constant(b, 5, 4, 3)], names, axis=1))
    inner = _relu(b, b.conv(names[1], 4, 4))
    return b.node("Concat", [names[0], names[2], b.node("Add", [inner, names[1]]), inner], axis=1), 16


def sliced(b: Builder, x: str) -> Made:
    x = _relu(b, b.conv(x, 3, 12))
    head = b.node("Slice", [x, _constant(b, 2), _constant(b, 8), _constant(b, 1)])
    tail = b.node("Slice", [x, _constant(b, -4, 1), _constant(b, 2**62, 5), _constant(b, 1, 2)])
    tail = b.node("Pad", [tail, _constant(b, 0, 0, 1, 0, 0, 0, 1, 0)])
    return b.node("Concat", [head, tail], axis=1), 10


def gathered(b: Builder, x: str) -> Made:
    x = _relu(b, b.conv(x, 3, 8))
    return b.node("Gather", [x, _constant(b, 5, 0, -1, 5, 2)], axis=1), 5


def resized(b: Builder, x: str) -> Made:
    x = b.node("Resize", [_relu(b, b.conv(x, 3, 8)), "", b.constant(np.array([1, 1, 2, 2], np.float32))], mode="nearest")
    x = b.node("Resize", [b.conv(x, 8, 6), "", "", _constant(b, 3, 6, 5, 5)], mode="nearest")
    return b.node("MaxPool", [b.node("InstanceNormalization", [x, b.weight(6), b.weight(6)])], kernel_shape=[2, 2]), 6


def flattened(b: Builder, x: str) -> Made:
    x = b.node("Flatten", [b.node("AveragePool", [_relu(b, b.conv(x, 3, 8))], kernel_shape=[2, 2], strides=[2, 2])])
    x = _relu(b, b.batch_norm(b.gemm(x, 72, 54), 54))
    return b.node("Reshape", [x, _constant(b, 0, 6, 3, 3)]), 6


def flattened_channels_last(b: Builder, x: str) -> Made:
    x = b.node("Transpose", [_relu(b, b.conv(x, 3, 4))], perm=[0, 2, 3, 1])
    x = b.gemm(b.node("Reshape", [x, _constant(b, -1, 144)]), 144, 7)
    return b.node("Unsqueeze", [b.node("Unsqueeze", [x, _constant(b, 2)]), _constant(b, 3)]), 7


def squeezed(b: Builder, x: str) -> Made:
    x = b.node("GlobalMaxPool", [_relu(b, b.conv(x, 3, 8))])
    x = b.node("Squeeze", [x, _constant(b, 2, 3)])
    x = b.node("Expand", [b.node("Unsqueeze", [x, _constant(b, 2, 3)]), _constant(b, 1, 8, 4, 4)])
    return b.node("LeakyRelu", [x]), 8


def shared_weights(b: Builder, x: str) -> Made:
    """One matrix read twice, one bias vector shared by layers of different groups."""
    stem, weight, bias = _relu(b, b.conv(x, 3, 6)), b.weight(6, 6, 3, 3), b.weight(6)
    first = b.node("Conv", [stem, weight, bias], pads=[1] * 4)
    second = b.node("Conv", [_relu(b, first), weight, bias], pads=[1] * 4)
    return b.node("Conv", [second, b.weight(6, 6, 1, 1), bias]), 6


def _many(op: str, inputs: list[str], outputs: list[str], **attributes: object):
    from onnx import helper

    return helper.make_node(op, inputs, outputs, **attributes)


TOPOLOGIES = {
    made.__name__: made
    for made in (
        chain, residual, residual_projection, pre_activation_stage, dense, added_concats, concat_with_input,
        concat_along_height, depthwise, depthwise_multiplier, grouped, two_group_counts, transposed, shuffle, depth_to_space,
        decomposed_pixel_shuffle, squeeze_excitation, squeeze_excitation_gemm, spatial_gate, constants_of_every_rank,
        channels_last, chunks, sliced, gathered, resized, flattened, flattened_channels_last, squeezed, shared_weights,
    )
}  # fmt: skip
