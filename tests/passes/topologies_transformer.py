"""Ways in which transformers, recurrent networks and normalizations wire their channels: as in topologies.py, on sequences.

Each function adds nodes to "x" [batch, 6, 12] and gives a tensor [batch, …, width] and its width.
"""

from __future__ import annotations

import numpy as np
from models import Builder
from onnx import helper

Made = tuple[str, int]
T, C, H, D = 6, 12, 4, 3


def _ints(b: Builder, *numbers: int) -> str:
    return b.constant(np.array(numbers, np.int64))


def _linear(b: Builder, x: str, width: int, out: int) -> str:
    return b.node("Add", [b.node("MatMul", [x, b.weight(width, out, scale=width**-0.5)]), b.weight(out, scale=0.3)])


def _many(b: Builder, op: str, inputs: list[str], count: int, **attributes: object) -> list[str]:
    names = [f"{op}_{len(b.nodes)}_{index}" for index in range(count)]
    b.nodes.append(helper.make_node(op, inputs, names, f"{op}_{len(b.nodes)}", **attributes))
    return names


def _heads(b: Builder, x: str, heads: int, depth: int = D, perm: tuple[int, ...] = (0, 2, 1, 3)) -> str:
    return b.node("Transpose", [b.node("Reshape", [x, _ints(b, 0, T, heads, depth)])], perm=perm)


def _attend(b: Builder, q: str, k: str, v: str, *, width: int = H * D, mask: str = "") -> Made:
    """q, v [batch, H, T, D], k [batch, H, D, T]."""
    scores = b.node("Mul", [b.node("MatMul", [q, k]), b.constant(np.float32(D**-0.5))])
    scores = b.node("Add", [scores, mask]) if mask else scores
    read = b.node("MatMul", [b.node("Softmax", [scores], axis=-1), v])
    joined = b.node("Reshape", [b.node("Transpose", [read], perm=[0, 2, 1, 3]), _ints(b, 0, T, width)])
    return _linear(b, joined, width, 10), 10


def attention(b: Builder, x: str, heads: int, depth: int) -> Made:
    q, v = (_heads(b, _linear(b, x, C, heads * depth), heads, depth) for _ in range(2))
    k = _heads(b, _linear(b, x, C, heads * depth), heads, depth, perm=(0, 2, 3, 1))
    return _attend(b, q, k, v, width=heads * depth)


def separate_projections(b: Builder, x: str) -> Made:
    return attention(b, x, H, D)


def one_head(b: Builder, x: str) -> Made:
    q, k, v = (_linear(b, x, C, 8) for _ in range(3))
    scores = b.node("MatMul", [q, b.node("Transpose", [k], perm=[0, 2, 1])])
    return b.node("MatMul", [b.node("Softmax", [scores], axis=-1), v]), 8


def _fused(b: Builder, x: str) -> str:
    qkv = b.node("Reshape", [_linear(b, x, C, 3 * H * D), _ints(b, -1, T, 3, H, D)])
    return b.node("Transpose", [qkv], perm=[2, 0, 3, 1, 4])


def fused_gather(b: Builder, x: str) -> Made:
    qkv = _fused(b, x)
    q, k, v = (b.node("Gather", [qkv, b.constant(np.int64(index))], axis=0) for index in range(3))
    return _attend(b, q, b.node("Transpose", [k], perm=[0, 1, 3, 2]), v)


def fused_split(b: Builder, x: str) -> Made:
    parts = _many(b, "Split", [_fused(b, x), _ints(b, 1, 1, 1)], 3, axis=0)
    q, k, v = (b.node("Squeeze", [part, _ints(b, 0)]) for part in parts)
    return _attend(b, q, b.node("Transpose", [k], perm=[0, 1, 3, 2]), v)


def split_before_the_heads(b: Builder, x: str) -> Made:
    parts = _many(b, "Split", [_linear(b, x, C, 3 * H * D), _ints(b, H * D, H * D, H * D)], 3, axis=2)
    q, k, v = (_heads(b, part, H) for part in parts)
    return _attend(b, q, b.node("Transpose", [k], perm=[0, 1, 3, 2]), v)


def normalized_queries(b: Builder, x: str) -> Made:
    q, k, v = (_heads(b, _linear(b, x, C, H * D), H) for _ in range(3))
    q, k = (b.node("LayerNormalization", [side, b.weight(D, scale=1), b.weight(D)], axis=-1) for side in (q, k))
    return _attend(b, q, b.node("Transpose", [k], perm=[0, 1, 3, 2]), v)


def decomposed_norm_of_queries(b: Builder, x: str) -> Made:
    q, k, v = (_heads(b, _linear(b, x, C, H * D), H) for _ in range(3))
    square = b.node("ReduceMean", [b.node("Mul", [q, q])], axes=[-1])
    root = b.node("Sqrt", [b.node("Add", [square, b.constant(np.float32(1e-2))])])
    return _attend(b, b.node("Div", [q, root]), b.node("Transpose", [k], perm=[0, 1, 3, 2]), v)


def grouped_queries(b: Builder, x: str) -> Made:
    """Two heads of keys and values, each for two heads of queries, repeated by Expand."""
    q = _heads(b, _linear(b, x, C, H * D), H)
    shared = []
    for _ in range(2):
        side = b.node("Unsqueeze", [_heads(b, _linear(b, x, C, 2 * D), 2), _ints(b, 2)])
        side = b.node("Expand", [side, _ints(b, 1, 2, 2, T, D)])
        shared.append(b.node("Reshape", [side, _ints(b, -1, H, T, D)]))
    return _attend(b, q, b.node("Transpose", [shared[0]], perm=[0, 1, 3, 2]), shared[1])


def multi_query(b: Builder, x: str) -> Made:
    """One head of keys and values, broadcast over the heads of queries."""
    q = _heads(b, _linear(b, x, C, H * D), H)
    k, v = (b.node("Unsqueeze", [_linear(b, x, C, D), _ints(b, 1)]) for _ in range(2))
    return _attend(b, q, b.node("Transpose", [k], perm=[0, 1, 3, 2]), v)


def additive_mask(b: Builder, x: str) -> Made:
    """A constant mask for all heads and a bias for each head, as a constant."""
    q, k, v = (_heads(b, _linear(b, x, C, H * D), H) for _ in range(3))
    causal = b.constant(np.triu(np.full((1, 1, T, T), -1e4, np.float32), 1))
    return _attend(b, q, b.node("Transpose", [k], perm=[0, 1, 3, 2]), v, mask=b.node("Add", [causal, b.weight(1, H, T, T)]))


def computed_mask(b: Builder, x: str) -> Made:
    """A mask [batch, 1, 1, T] from the input."""
    q, k, v = (_heads(b, _linear(b, x, C, H * D), H) for _ in range(3))
    mask = b.node("Unsqueeze", [b.node("ReduceMax", [x], axes=[2], keepdims=0), _ints(b, 1, 2)])
    return _attend(b, q, b.node("Transpose", [k], perm=[0, 1, 3, 2]), v, mask=mask)


def rotary(b: Builder, x: str) -> Made:
    """Half of each head is rotated against the other half; one table of angles for queries and keys."""
    heads, depth = 3, 4
    q, k, v = (_heads(b, _linear(b, x, C, heads * depth), heads, depth) for _ in range(3))
    angles = np.tile(np.outer(np.arange(T), [1.0, 0.1]), 2)
    cos, sin = (b.constant(part.astype(np.float32)) for part in (np.cos(angles), np.sin(angles)))

    def rotated(side: str) -> str:
        low = b.node("Slice", [side, _ints(b, 0), _ints(b, 2), _ints(b, 3)])
        high = b.node("Slice", [side, _ints(b, 2), _ints(b, 2**62), _ints(b, 3)])
        half = b.node("Concat", [b.node("Neg", [high]), low], axis=-1)
        return b.node("Add", [b.node("Mul", [side, cos]), b.node("Mul", [half, sin])])

    return _attend(b, rotated(q), b.node("Transpose", [rotated(k)], perm=[0, 1, 3, 2]), v, width=heads * depth)


def windows(b: Builder, x: str) -> Made:
    """Swin: windows of 1 x 3 positions of a map of 2 x 3, fused projections, a mask for each window, merged back."""
    grid = b.node("Reshape", [_linear(b, x, C, 8), _ints(b, -1, 2, 3, 8)])
    cut = b.node("Transpose", [b.node("Reshape", [grid, _ints(b, -1, 2, 1, 1, 3, 8)])], perm=[0, 1, 3, 2, 4, 5])
    cut = b.node("Reshape", [cut, _ints(b, -1, 3, 8)])
    qkv = b.node("Reshape", [_linear(b, cut, 8, 3 * 8), _ints(b, -1, 3, 3, 4, 2)])
    qkv = b.node("Transpose", [qkv], perm=[2, 0, 3, 1, 4])
    q, k, v = (b.node("Gather", [qkv, b.constant(np.int64(index))], axis=0) for index in range(3))
    scores = b.node("MatMul", [q, b.node("Transpose", [k], perm=[0, 1, 3, 2])])
    masked = b.node("Add", [b.node("Reshape", [scores, _ints(b, -1, 2, 4, 3, 3)]), b.weight(1, 2, 1, 3, 3)])
    probabilities = b.node("Softmax", [b.node("Reshape", [masked, _ints(b, -1, 4, 3, 3)])], axis=-1)
    read = b.node("Transpose", [b.node("MatMul", [probabilities, v])], perm=[0, 2, 1, 3])
    y = _linear(b, b.node("Reshape", [read, _ints(b, -1, 3, 8)]), 8, 8)
    y = b.node("Transpose", [b.node("Reshape", [y, _ints(b, -1, 2, 1, 1, 3, 8)])], perm=[0, 1, 3, 2, 4, 5])
    return b.node("Add", [b.node("Reshape", [y, _ints(b, -1, 2, 3, 8)]), grid]), 8


def patch_merging(b: Builder, x: str) -> Made:
    grid = b.node("Reshape", [_linear(b, x, C, 10), _ints(b, -1, 2, 3, 10)])
    grid = b.node("Pad", [grid, _ints(b, 0, 0, 0, 0, 0, 0, 1, 0)])
    parts = [
        b.node("Slice", [grid, _ints(b, row, column), _ints(b, 2**62, 2**62), _ints(b, 1, 2), _ints(b, 2, 2)])
        for row in (0, 1)
        for column in (0, 1)
    ]
    return b.node("Concat", parts, axis=-1), 40


def unfolded(b: Builder, x: str) -> Made:
    """MobileViT: channels first, patches unfolded to [batch * pixels, patches, C], and folded back."""
    image = b.node("Reshape", [b.node("Transpose", [_linear(b, x, C, 8)], perm=[0, 2, 1]), _ints(b, -1, 8, 2, 3)])
    image = b.node("Conv", [b.node("Pad", [image, _ints(b, 0, 0, 0, 0, 0, 0, 0, 1)]), b.weight(8, 8, 1, 1)])
    fold = b.node("Transpose", [b.node("Reshape", [image, _ints(b, -1, 2, 2, 2)])], perm=[0, 2, 1, 3])
    fold = b.node("Transpose", [b.node("Reshape", [fold, _ints(b, -1, 8, 2, 4)])], perm=[0, 3, 2, 1])
    y = _linear(b, b.node("Relu", [_linear(b, fold, 8, 14)]), 14, 8)
    y = b.node("Reshape", [b.node("Transpose", [y], perm=[0, 3, 2, 1]), _ints(b, -1, 8, 8)])
    return b.node("Transpose", [y], perm=[0, 2, 1]), 8


def token_mixing(b: Builder, x: str) -> Made:
    """MLP-Mixer: products over the positions, with the constant in front, leave the channels alone."""
    y = _linear(b, x, C, 8)
    mixed = b.node("MatMul", [b.weight(7, T), y])
    return b.node("MatMul", [b.weight(1, 5, 7), b.node("Relu", [mixed])]), 8


def constant_first(b: Builder, x: str) -> Made:
    y = b.node("Relu", [b.node("Transpose", [_linear(b, x, C, 8)], perm=[0, 2, 1])])
    return b.node("Transpose", [b.node("MatMul", [b.weight(10, 8), y])], perm=[0, 2, 1]), 10


def batched_constants(b: Builder, x: str) -> Made:
    """A matrix for each head, once in front and once behind."""
    y = _heads(b, _linear(b, x, C, H * D), H)
    y = b.node("Relu", [b.node("MatMul", [y, b.weight(H, D, 5)])])
    y = b.node("Add", [b.node("MatMul", [y, b.weight(1, H, 5, D)]), b.weight(H, 1, D)])
    return b.node("Reshape", [b.node("Transpose", [y], perm=[0, 2, 1, 3]), _ints(b, 0, T, H * D)]), H * D


def gemm_of_activations(b: Builder, x: str) -> Made:
    """x^T·y with alpha between two activations, computed bias, and a constant in front."""
    flat = b.node("Reshape", [x, _ints(b, -1, C)])
    one = b.node("Relu", [b.node("Gemm", [flat, b.weight(C, 8), b.weight(1, 8)], alpha=0.7, beta=0.5)])
    two = b.node("Relu", [b.node("Gemm", [b.weight(C, 10), flat], transA=1, transB=1)])
    two = b.node("Transpose", [two], perm=[1, 0])
    three = b.node("Gemm", [b.node("MatMul", [one, b.weight(8, 7)]), b.weight(10, 7), two], transB=1, beta=2.0)
    product = b.node("Gemm", [one, three], transA=1, alpha=0.1)
    return product, 10


def einsum_heads(b: Builder, x: str) -> Made:
    """Projections with weights [C, heads, positions], as TensorFlow writes them."""
    q, k, v = (
        b.node("Add", [b.node("Einsum", [x, b.weight(C, H, D, scale=0.3)], equation="btc,chd->bthd"), b.weight(H, D)])
        for _ in range(3)
    )
    scores = b.node("Softmax", [b.node("Einsum", [q, k], equation="bthd,bshd->bhts")], axis=-1)
    read = b.node("Einsum", [scores, v], equation="bhts,bshd->bthd")
    return b.node("Einsum", [read, b.weight(H, D, 10)], equation="...hd,hdc->...c"), 10


def einsum_chain(b: Builder, x: str) -> Made:
    y = b.node("Relu", [b.node("Einsum", [x, b.weight(C, 9)], equation="btc,cd")])
    y = b.node("Einsum", [b.weight(9, 7), y], equation="dc,...dt->...tc")
    return b.node("Einsum", [y, b.node("Sigmoid", [y])], equation="btc,btc->btc"), 7


def _recurrent(b: Builder, op: str, x: str, width: int, hidden: int, both: bool, *more: str, **attributes: object) -> list[str]:
    gates, directions = {"LSTM": 4, "GRU": 3, "RNN": 1}[op], 2 if both else 1
    weights = [
        b.weight(directions, gates * hidden, width, scale=0.3),
        b.weight(directions, gates * hidden, hidden, scale=0.3),
        b.weight(directions, 2 * gates * hidden, scale=0.3),
    ]
    count, direction = (3 if op == "LSTM" else 2), "bidirectional" if both else "forward"
    return _many(b, op, [x, *weights, *more], count, hidden_size=hidden, direction=direction, **attributes)


def stacked_lstm(b: Builder, x: str) -> Made:
    """Both directions, then one; peepholes and initial states; the last state is used too."""
    x = b.node("Slice", [b.node("Transpose", [x], perm=[1, 0, 2]), _ints(b, 0), _ints(b, 1), _ints(b, 1)])
    states = [b.weight(2, 1, 8, scale=0.5), b.weight(2, 1, 8, scale=0.5)]
    first = _recurrent(b, "LSTM", x, C, 8, True, "", *states, b.weight(2, 24, scale=0.3))[0]
    first = b.node("Reshape", [b.node("Transpose", [first], perm=[0, 2, 1, 3]), _ints(b, T, 1, 16)])
    second, hidden, cell = _recurrent(b, "LSTM", first, 16, 9, False)
    second = b.node("Add", [b.node("Squeeze", [second, _ints(b, 1)]), b.node("Mul", [hidden, b.node("Tanh", [cell])])])
    return second, 9


def stacked_gru(b: Builder, x: str) -> Made:
    x = b.node("Transpose", [_linear(b, x, C, 7)], perm=[1, 0, 2])
    first, _ = _recurrent(b, "GRU", x, 7, 6, False, linear_before_reset=1)
    second, _ = _recurrent(b, "GRU", b.node("Squeeze", [first, _ints(b, 1)]), 6, 8, True)
    summed = b.node("ReduceSum", [second, _ints(b, 1)], keepdims=0)
    return summed, 8


def rnn_state_from_another(b: Builder, x: str) -> Made:
    """The last state of one network starts the other."""
    x = b.node("Transpose", [x], perm=[1, 0, 2])
    first, state = _recurrent(b, "RNN", x, C, 8, False)
    second, _ = _recurrent(b, "RNN", b.node("Squeeze", [first, _ints(b, 1)]), 8, 8, False, "", state)
    return b.node("Squeeze", [second, _ints(b, 1)]), 8


def tied_embedding(b: Builder, x: str) -> Made:
    """A table [20, E] read by token and, transposed, as the last matrix but one."""
    table = b.weight(20, 10, scale=1)
    tokens = b.node(
        "Clip", [b.node("Mul", [x, b.constant(np.float32(5))]), b.constant(np.float32(0)), b.constant(np.float32(19))]
    )
    tokens = b.node("Cast", [b.node("ReduceMax", [tokens], axes=[2], keepdims=0)], to=7)
    y = b.node("Add", [b.node("Gather", [table, tokens]), b.weight(T, 10)])
    y = b.node("Add", [_linear(b, b.node("Relu", [_linear(b, y, 10, 14)]), 14, 10), y])
    logits = b.node("Gemm", [b.node("Reshape", [y, _ints(b, -1, 10)]), table], transB=1)
    return b.node("Softmax", [logits], axis=-1), 20


def group_norm_by_instances(b: Builder, x: str) -> Made:
    """GroupNormalization as exporters before opset 18 write it: whole groups of channels go."""
    y = b.node("Transpose", [_linear(b, x, C, 12)], perm=[0, 2, 1])
    y = b.node("Reshape", [y, _ints(b, -1, 4, 3 * T)])
    y = b.node("InstanceNormalization", [y, b.weight(4, scale=1), b.weight(4)])
    y = b.node("Add", [b.node("Mul", [b.node("Reshape", [y, _ints(b, -1, 12, T)]), b.weight(12, 1)]), b.weight(12, 1)])
    return b.node("Transpose", [y], perm=[0, 2, 1]), 12


TOPOLOGIES = {
    made.__name__: made
    for made in (
        one_head, patch_merging, unfolded, token_mixing, constant_first, gemm_of_activations, einsum_chain, stacked_lstm,
        stacked_gru, rnn_state_from_another, tied_embedding, group_norm_by_instances,
    )
}  # fmt: skip
WITH_HEADS = {
    made.__name__: made
    for made in (
        separate_projections, fused_gather, fused_split, split_before_the_heads, normalized_queries,
        decomposed_norm_of_queries, grouped_queries, multi_query, additive_mask, computed_mask, rotary, windows,
        batched_constants, einsum_heads,
    )
}  # fmt: skip
