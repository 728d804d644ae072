"""Gates, constants and normalizations as exporters write them out, on images: further cases of the matrix."""

from __future__ import annotations

import numpy as np
from models import Builder

from .topologies import Made, _constant, _many, _relu


def concat_with_constant(b: Builder, x: str) -> Made:
    """A learned map beside the channels, and one above the rows, whose channels follow."""
    x = b.node("ReduceMean", [_relu(b, b.conv(x, 3, 8))], axes=[0])
    x = b.node("Concat", [x, b.weight(1, 8, 2, 6)], axis=2)
    return b.node("Concat", [b.weight(1, 4, 8, 6), x, b.weight(1, 1, 8, 6)], axis=1), 13


def block_attention(b: Builder, x: str) -> Made:
    """CBAM: one bottleneck for the mean and the maximum of each channel, then a gate from statistics over the channels."""
    x = _relu(b, b.conv(x, 3, 8))
    down, up = b.weight(6, 8, 1, 1), b.weight(8, 6, 1, 1)
    pooled = [b.node(op, [x]) for op in ("GlobalAveragePool", "GlobalMaxPool")]
    gates = [b.node("Conv", [_relu(b, b.node("Conv", [one, down])), up]) for one in pooled]
    x = b.node("Mul", [x, b.node("Sigmoid", [b.node("Add", gates)])])
    both = [b.node(op, [x], axes=[1]) for op in ("ReduceMean", "ReduceMax")]
    return b.node("Mul", [x, b.node("Sigmoid", [b.conv(b.node("Concat", both, axis=1), 2, 1, 5)])]), 8


def one_map_for_all(b: Builder, x: str) -> Made:
    """[B,1,H,W]*[B,C,H,W], from either side; the map has a bottleneck of its own."""
    x = _relu(b, b.conv(x, 3, 8))
    gate = b.node("Sigmoid", [b.conv(_relu(b, b.conv(x, 8, 6)), 6, 1)])
    return b.node("Mul", [b.node("Mul", [gate, x]), gate]), 8


def constants_of_rank_zero_to_five(b: Builder, x: str) -> Made:
    x = b.node("Transpose", [b.conv(x, 3, 8)], perm=[0, 2, 3, 1])
    x = b.node("Mul", [x, b.constant(np.float32(0.5))])
    for shape in ((8,), (1, 8), (6, 1, 8), (6, 6, 1), (1, 1, 6, 8)):
        x = b.node("Add", [x, b.weight(*shape)])
    x = b.node("Squeeze", [b.node("Sub", [b.weight(1, 1, 1, 1, 8), x]), _constant(b, 0)])
    return b.node("PRelu", [b.node("Transpose", [x], perm=[0, 3, 1, 2]), b.weight(8, 1, 1)]), 8


def instance_norm_written_out(b: Builder, x: str) -> Made:
    x = b.conv(x, 3, 8)
    centered = b.node("Sub", [x, b.node("ReduceMean", [x], axes=[2, 3])])
    variance = b.node("ReduceMean", [b.node("Pow", [centered, b.constant(np.float32(2))])], axes=[2, 3])
    x = b.node("Div", [centered, b.node("Sqrt", [b.node("Add", [variance, b.constant(np.float32(1e-3))])])])
    return b.node("Add", [b.node("Mul", [x, b.weight(8, 1, 1)]), b.weight(8, 1, 1)]), 8


def group_norm_written_out(b: Builder, x: str) -> Made:
    """Reshape to groups, InstanceNormalization, and back by the shape that was read: whole groups go."""
    x = b.conv(x, 3, 16)
    y = b.node("InstanceNormalization", [b.node("Reshape", [x, _constant(b, 0, 8, -1)]), b.weight(8, scale=1), b.weight(8)])
    y = b.node("Reshape", [y, b.node("Shape", [x])])
    return _relu(b, b.node("Add", [b.node("Mul", [y, b.weight(16, 1, 1)]), b.weight(16, 1, 1)])), 16


def shuffle_net(b: Builder, x: str) -> Made:
    """Version 1: a grouped convolution, a shuffle of its groups, a depthwise and another grouped one, beside what came in."""
    x = _relu(b, b.conv(x, 3, 12))
    y = _relu(b, b.conv(x, 12, 12, 1, group=3))
    y = b.node("Transpose", [b.node("Reshape", [y, _constant(b, 0, 3, 4, 6, 6)])], perm=[0, 2, 1, 3, 4])
    y = b.conv(b.node("Reshape", [y, _constant(b, 0, 12, 6, 6)]), 12, 12, group=12)
    return _relu(b, b.node("Add", [x, b.conv(y, 12, 12, 1, group=3)])), 12


def shuffle_net_halves(b: Builder, x: str) -> Made:
    """Version 2, twice: half goes through a branch, both are joined and their channels interleaved."""
    x = _relu(b, b.conv(x, 3, 12))
    for _ in range(2):
        names = [f"{x}_left", f"{x}_right"]
        b.nodes.append(_many("Split", [x, _constant(b, 6, 6)], names, axis=1))
        y = _relu(b, b.conv(b.conv(_relu(b, b.conv(names[1], 6, 6, 1)), 6, 6, group=6), 6, 6, 1))
        x = b.node("Reshape", [b.node("Concat", [names[0], y], axis=1), _constant(b, 0, 2, 6, 6, 6)])
        x = b.node("Reshape", [b.node("Transpose", [x], perm=[0, 2, 1, 3, 4]), _constant(b, 0, 12, 6, 6)])
    return x, 12


def several_heads(b: Builder, x: str) -> Made:
    """Two levels, each with a head of classes and one of boxes; the heads of both levels share their weights."""
    top = _relu(b, b.conv(x, 3, 8))
    low = _relu(b, b.conv(top, 8, 8, strides=[2, 2]))
    tower, classes, boxes = b.weight(7, 8, 3, 3), b.weight(4, 7, 1, 1), b.weight(2, 7, 1, 1)
    for level, map_ in enumerate((top, low)):
        inner = _relu(b, b.node("Conv", [map_, tower], pads=[1] * 4))
        b.node("Conv", [inner, classes], f"also_classes_{level}")
        b.node("Conv", [inner, boxes], f"also_boxes_{level}")
    return low, 8


def auxiliary_outputs(b: Builder, x: str) -> Made:
    x = _relu(b, b.conv(x, 3, 8))
    b.conv(_relu(b, b.conv(x, 8, 6)), 6, 2, 1, "also_auxiliary")
    return _relu(b, b.conv(x, 8, 10)), 10


PRUNABLE = {
    made.__name__: made
    for made in (
        concat_with_constant, one_map_for_all, constants_of_rank_zero_to_five, instance_norm_written_out,
        group_norm_written_out, shuffle_net, shuffle_net_halves, several_heads, auxiliary_outputs,
    )
}  # fmt: skip
