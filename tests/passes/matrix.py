"""The matrix of cases: further wirings that can be pruned, and those that must be frozen, each with its reason."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from models import Builder
from onnx import helper

from . import topologies_gates, topologies_quantized
from .pruning import image_model
from .topologies import TOPOLOGIES, Made, _constant, _many, _relu

Build = Callable[[Builder, str], Made]


def _sizes(b: Builder, x: str, *axes: int) -> list[str]:
    """The sizes of some axes, as an exporter reads them: Shape, Gather, Unsqueeze."""
    shape = b.node("Shape", [x])
    picked = [b.node("Gather", [shape, b.constant(np.int64(axis))], axis=0) for axis in axes]
    return [b.node("Unsqueeze", [size, _constant(b, 0)]) for size in picked]


def u_net(b: Builder, x: str) -> Made:
    top = _relu(b, b.conv(x, 3, 8))
    low = _relu(b, b.conv(b.node("MaxPool", [top], kernel_shape=[2, 2], strides=[2, 2]), 8, 12))
    up = b.node("ConvTranspose", [low, b.weight(12, 6, 2, 2)], strides=[2, 2])
    return _relu(b, b.conv(b.node("Concat", [up, top], axis=1), 14, 7)), 7


def cross_stage(b: Builder, x: str) -> Made:
    """C2f: a chunk, a bottleneck on one half, everything concatenated."""
    names = [f"{x}_left", f"{x}_right"]
    b.nodes.append(_many("Split", [_relu(b, b.conv(x, 3, 12)), _constant(b, 6, 6)], names, axis=1))
    inner = b.node("Add", [names[1], _relu(b, b.conv(_relu(b, b.conv(names[1], 6, 4)), 4, 6))])
    return b.node("Concat", [*names, inner], axis=1), 18


def strided_slices(b: Builder, x: str) -> Made:
    x = _relu(b, b.conv(x, 3, 12))
    ends = _constant(b, 2**62)
    even = b.node("Slice", [x, _constant(b, 0), ends, _constant(b, 1), _constant(b, 2)])
    odd = b.node("Slice", [x, _constant(b, -1), _constant(b, -(2**62)), _constant(b, 1), _constant(b, -2)])
    return b.node("Concat", [even, odd], axis=1), 12


def ghost(b: Builder, x: str) -> Made:
    primary = _relu(b, b.conv(x, 3, 6, 1))
    return b.node("Concat", [primary, _relu(b, b.conv(primary, 6, 6, group=6))], axis=1), 12


def grouped_32(b: Builder, x: str) -> Made:
    x = _relu(b, b.conv(x, 3, 128, 1))
    return _relu(b, b.batch_norm(b.conv(x, 128, 128, group=32), 128)), 128


def group_across_concat(b: Builder, x: str) -> Made:
    joined = b.node("Concat", [_relu(b, b.conv(x, 3, 10)), _relu(b, b.conv(x, 3, 14))], axis=1)
    return _relu(b, b.conv(joined, 24, 12, group=3)), 12


def transposed_residual(b: Builder, x: str) -> Made:
    x = _relu(b, b.conv(x, 3, 8))
    up = [
        b.node("ConvTranspose", [x, b.weight(8, 4, 3, 3)], strides=[2, 2], pads=[1] * 4, output_padding=[1, 1], group=2)
        for _ in range(2)
    ]
    return b.node("Concat", [_relu(b, b.node("Add", up)), up[0]], axis=1), 16


def generator(b: Builder, x: str) -> Made:
    x = _relu(b, b.gemm(b.node("Flatten", [b.node("GlobalAveragePool", [_relu(b, b.conv(x, 3, 9))])]), 9, 72))
    x = b.node("Reshape", [x, _constant(b, -1, 8, 3, 3)])
    return _relu(b, b.node("ConvTranspose", [x, b.weight(8, 6, 2, 2)], strides=[2, 2])), 6


def one_dimensional(b: Builder, x: str) -> Made:
    x = b.node("Reshape", [_relu(b, b.conv(x, 3, 6)), _constant(b, 0, 6, -1)])
    x = _relu(b, b.node("Conv", [x, b.weight(8, 6, 3)], strides=[3]))
    x = b.gemm(b.node("Flatten", [x]), 96, 7)
    return b.node("Reshape", [x, _constant(b, 0, 7, 1, 1)]), 7


def layer_scale(b: Builder, x: str) -> Made:
    stem = _relu(b, b.conv(x, 3, 8))
    inner = b.conv(b.conv(stem, 8, 8, group=8), 8, 16, 1)
    halved = b.node("Mul", [inner, b.constant(np.float32(0.7071))])
    gelu = b.node("Mul", [inner, b.node("Add", [b.node("Erf", [halved]), b.constant(np.float32(1))])])
    return b.node("Add", [stem, b.node("Mul", [b.conv(gelu, 16, 8, 1), b.weight(8, 1, 1)])]), 8


def decomposed_silu(b: Builder, x: str) -> Made:
    x = b.conv(x, 3, 8)
    return b.node("Mul", [x, b.node("Sigmoid", [x])]), 8


def shared_on_two_axes(b: Builder, x: str) -> Made:
    """One square matrix read as a weight [O, I] and as a weight [I, O]."""
    weight = b.weight(8, 8, 1, 1)
    x = _relu(b, b.node("Conv", [_relu(b, b.conv(x, 3, 8)), weight]))
    return _relu(b, b.node("ConvTranspose", [x, weight])), 8


def tiled(b: Builder, x: str) -> Made:
    return b.node("Tile", [_relu(b, b.conv(x, 3, 6)), _constant(b, 1, 2, 1, 1)]), 12


def shuffle_of_read_sizes(b: Builder, x: str) -> Made:
    x = _relu(b, b.conv(x, 3, 12))
    batch, height, width = _sizes(b, x, 0, 2, 3)
    split = b.node("Concat", [batch, _constant(b, 3), _constant(b, 4), height, width], axis=0)
    x = b.node("Transpose", [b.node("Reshape", [x, split])], perm=[0, 2, 1, 3, 4])
    joined = b.node("Concat", [batch, _constant(b, -1), height, width], axis=0)
    return b.node("Reshape", [x, joined]), 12


def flattened_by_read_sizes(b: Builder, x: str) -> Made:
    x = b.node("GlobalAveragePool", [_relu(b, b.conv(x, 3, 8))])
    batch, channels = _sizes(b, x, 0, 1)
    x = _relu(b, b.gemm(b.node("Reshape", [x, b.node("Concat", [batch, channels], axis=0)]), 8, 6))
    return b.node("Reshape", [x, b.node("Concat", [batch, _constant(b, 6, 1, 1)], axis=0)]), 6


def resized_to_read_sizes(b: Builder, x: str) -> Made:
    top = _relu(b, b.conv(x, 3, 8))
    low = _relu(b, b.conv(top, 8, 6, strides=[2, 2]))
    lead = b.node("Slice", [b.node("Shape", [low]), _constant(b, 0), _constant(b, 2)])
    space = b.node("Slice", [b.node("Shape", [top]), _constant(b, 2), _constant(b, 4)])
    up = b.node("Resize", [low, "", "", b.node("Concat", [lead, space], axis=0)], mode="nearest")
    return b.node("Concat", [top, up], axis=1), 14


def _tokens(b: Builder, x: str) -> str:
    """[batch, C, H, W] to [batch, -1, C], the first two sizes read at run time."""
    lead = b.node("Slice", [b.node("Shape", [x]), _constant(b, 0), _constant(b, 2)])
    flat = b.node("Reshape", [x, b.node("Concat", [lead, _constant(b, -1)], axis=0)])
    return b.node("Transpose", [flat], perm=[0, 2, 1])


def normalized_tokens(b: Builder, x: str) -> Made:
    """LeViT: BatchNormalization with batch and tokens as one axis, which is as long as a product of sizes."""
    tokens = b.node("MatMul", [_tokens(b, _relu(b, b.conv(x, 3, 8))), b.weight(8, 6)])
    flat = b.batch_norm(b.node("Flatten", [tokens], axis=2), 6)
    back = b.node("Transpose", [b.node("Reshape", [flat, b.node("Shape", [tokens])])], perm=[0, 2, 1])
    return _relu(b, b.node("Reshape", [back, _constant(b, -1, 6, 6, 6)])), 6


def top_k_of_space(b: Builder, x: str) -> Made:
    b.nodes.append(_many("TopK", [_relu(b, b.conv(x, 3, 8)), _constant(b, 4)], ["values", "indices"], axis=3))
    return "values", 8


PRUNABLE: dict[str, Build] = TOPOLOGIES | topologies_quantized.PRUNABLE | topologies_gates.PRUNABLE | {
    made.__name__: made
    for made in (
        u_net, cross_stage, strided_slices, ghost, grouped_32, group_across_concat, transposed_residual, generator,
        one_dimensional, layer_scale, decomposed_silu, shared_on_two_axes, tiled, shuffle_of_read_sizes,
        flattened_by_read_sizes, normalized_tokens, resized_to_read_sizes, top_k_of_space,
    )
}  # fmt: skip


def _stem(b: Builder, x: str) -> str:
    return _relu(b, b.conv(x, 3, 8))


def efficient_attention(b: Builder, x: str) -> Made:
    """ECA: a convolution that runs along the channels."""
    x = _stem(b, x)
    pooled = b.node("Squeeze", [b.node("GlobalAveragePool", [x]), _constant(b, 3)])
    gate = b.node("Conv", [b.node("Transpose", [pooled], perm=[0, 2, 1]), b.weight(1, 1, 3)], pads=[1, 1])
    gate = b.node("Unsqueeze", [b.node("Transpose", [gate], perm=[0, 2, 1]), _constant(b, 3)])
    return b.node("Mul", [x, b.node("Sigmoid", [gate])]), 8


def spatial_statistics(b: Builder, x: str) -> Made:
    """CBAM's second half: mean and maximum over the channels."""
    x = _stem(b, x)
    both = [b.node(op, [x], axes=[1]) for op in ("ReduceMean", "ReduceMax")]
    return b.node("Mul", [x, b.node("Sigmoid", [b.conv(b.node("Concat", both, axis=1), 2, 1)])]), 8


def softmax(b: Builder, x: str) -> Made:
    return b.node("Softmax", [_stem(b, x)], axis=1), 8


def top_k(b: Builder, x: str) -> Made:
    b.nodes.append(_many("TopK", [_stem(b, x), _constant(b, 4)], ["values", "indices"], axis=1))
    return "values", 4


def class_token(b: Builder, x: str) -> Made:
    """A learned token before the others, expanded to a batch that is read at run time."""
    tokens = _tokens(b, b.conv(x, 3, 8))
    wanted = b.node("Concat", [*_sizes(b, tokens, 0), _constant(b, -1, -1)], axis=0)
    ones = b.node("ConstantOfShape", [_constant(b, 3)], value=onnx.numpy_helper.from_array(np.ones(1, np.int64)))
    wanted = b.node("Where", [b.node("Equal", [wanted, _constant(b, -1, -1, -1)]), ones, wanted])
    joined = b.node("Concat", [b.node("Expand", [b.weight(1, 1, 8), wanted]), tokens], axis=1)
    return b.node("Unsqueeze", [b.node("Transpose", [joined], perm=[0, 2, 1]), _constant(b, 3)]), 8


def computed_number(b: Builder, x: str) -> Made:
    x = _stem(b, x)
    (count,) = _sizes(b, x, 1)
    return b.node("Div", [x, b.node("Cast", [count], to=1)]), 8


def number_used_twice(b: Builder, x: str) -> Made:
    """One computed shape, with a number of channels in it, for two tensors of different channels."""
    x, other = _stem(b, x), b.conv(x, 3, 8)
    wanted = b.node("Concat", [*_sizes(b, x, 0), _constant(b, 8, 36, 1)], axis=0)
    b.conv(b.node("Reshape", [other, wanted]), 8, 2, 1, "other")
    return b.node("Reshape", [x, wanted]), 8


def added_to_the_input(b: Builder, x: str) -> Made:
    wide = b.node("Slice", [b.node("Concat", [x, x, x], axis=1), _constant(b, 0), _constant(b, 8), _constant(b, 1)])
    return b.node("Add", [b.conv(b.conv(wide, 8, 6), 6, 8), wide]), 8


def loop_body(b: Builder, x: str) -> Made:
    """The body reads channels of the graph around it."""
    x = _stem(b, x)
    info = [
        helper.make_tensor_value_info(name, kind, shape)
        for name, kind, shape in (
            ("i", 7, []),
            ("go_on", 9, []),
            ("state", 1, ["n", 8, 6, 6]),
            ("go_on_out", 9, []),
            ("sum", 1, ["n", 8, 6, 6]),
        )
    ]
    nodes = [helper.make_node("Identity", ["go_on"], ["go_on_out"]), helper.make_node("Add", ["state", x], ["sum"])]
    body = helper.make_graph(nodes, "body", info[:3], info[3:])
    start = b.node("Neg", [x])
    return b.node("Loop", [b.constant(np.int64(2)), b.constant(np.bool_(True)), start], body=body), 8


def if_branches(b: Builder, x: str) -> Made:
    x = _stem(b, x)
    branches = [
        helper.make_graph([helper.make_node(op, [x], [op])], op, [], [helper.make_tensor_value_info(op, 1, ["n", 8, 6, 6])])
        for op in ("Neg", "Abs")
    ]
    positive = b.node("Greater", [b.node("ReduceSum", ["x"], keepdims=0), b.constant(np.float32(0))])
    return b.node("If", [positive], then_branch=branches[0], else_branch=branches[1]), 8


def choice_of_boxes(b: Builder, x: str) -> Made:
    """NonMaxSuppression over the classes of a detector; the trunk before it can go."""
    trunk = _relu(b, b.conv(x, 3, 10))
    scores = b.node("Sigmoid", [b.conv(trunk, 10, 8, 1)])
    boxes = b.node("Transpose", [b.node("Reshape", [b.conv(trunk, 10, 4, 1), _constant(b, 0, 4, 36)])], perm=[0, 2, 1])
    flat = b.node("Reshape", [scores, _constant(b, 0, 8, 36)])
    chosen = b.node("NonMaxSuppression", [boxes, flat, b.constant(np.int64(2))])
    b.node("Cast", [chosen], "also_chosen", to=1)
    return scores, 8


def largest_channel(b: Builder, x: str) -> Made:
    x = _stem(b, x)
    return b.node("Mul", [x, b.node("Cast", [b.node("ArgMax", [x], axis=1)], to=1)]), 8


FROZEN: dict[str, tuple[Build, str]] = {
    "efficient_attention": (efficient_attention, "it convolves along an axis that holds channels"),
    "spatial_statistics": (spatial_statistics, "it reduces over the channels"),
    "block_attention": (topologies_gates.block_attention, "it reduces over the channels"),
    "added_to_the_input": (added_to_the_input, "it meets"),
    "loop_body": (loop_body, "subgraph"),
    "if_branches": (if_branches, "a subgraph reads it"),
    "choice_of_boxes": (choice_of_boxes, "it chooses among the boxes by their values"),
    "largest_channel": (largest_channel, "it reduces over the channels"),
    "softmax": (softmax, "it normalizes over the channels"),
    "top_k": (top_k, "it chooses among the channels"),
    "quantized_by_a_computed_scale": (topologies_quantized.quantized_by_a_computed_scale, "its scale is computed"),
    "number_used_twice": (number_used_twice, "a number in its shape is also used elsewhere"),
    "class_token": (class_token, "it joins them with a tensor that keeps all its channels"),
    "computed_number": (computed_number, "its size is read at run time"),
}


def case(name: str) -> onnx.ModelProto:
    """The model of a case, by its name in PRUNABLE or FROZEN."""
    return image_model(PRUNABLE[name] if name in PRUNABLE else FROZEN[name][0])


def macs_after(proto: onnx.ModelProto, seed: int) -> tuple[int, int, onnx.ModelProto]:
    """Multiply-accumulates before and after one random keep-set, and the pruned model."""
    from deburr.ir.onnx_writer import to_proto
    from deburr.passes.analysis.cost import cost
    from deburr.passes.prune.surgery import remove_channels

    from .pruning import analyse, random_keep

    model, context, analysis = analyse(proto)
    before = cost(model.graph, context).total_macs
    keep, _ = analysis.repair(random_keep(analysis, np.random.default_rng(seed)))
    remove_channels(analysis, keep, context)
    return before, cost(model.graph, context).total_macs, to_proto(model)
