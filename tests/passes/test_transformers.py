"""Attention, recurrent networks and normalizations: what is pruned of them is exact, and what is not is flagged."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from models import Builder
from onnx import helper, numpy_helper

from deburr.ir.model import Model
from deburr.ir.onnx_reader import read
from deburr.ir.onnx_writer import to_proto
from deburr.passes.analysis.channels import channels
from deburr.passes.analysis.cost import cost
from deburr.passes.analysis.groups import Channels
from deburr.passes.analysis.walk import ChannelOptions
from deburr.passes.core import Context
from deburr.passes.prune.budget import Ledger
from deburr.passes.prune.channels import PruneChannels
from deburr.passes.prune.surgery import remove_channels

from .pruning import random_keep, run
from .topologies_transformer import TOPOLOGIES, WITH_HEADS, C, D, H, Made, T, attention

Build = Callable[[Builder, str], Made]


def sequence_model(build: Build, opset: int = 17) -> onnx.ModelProto:
    """`build` makes a tensor [..., width]; a product with [width, 5] reads it as "y".

    ONNX infers no type for GroupNormalization: these tests give it, [batch, 16, T].
    """
    builder = Builder()
    made, width = build(builder, "x")
    builder.node("MatMul", [made, builder.weight(width, 5, scale=width**-0.5)], "y")
    graph = helper.make_graph(
        builder.nodes, "tiny", [helper.make_tensor_value_info("x", 1, ["batch", T, C])],
        [helper.make_tensor_value_info("y", 1, None)], builder.initializers, value_info=[
            helper.make_tensor_value_info(node.output[0], 1, ["batch", 16, T])
            for node in builder.nodes if node.op_type == "GroupNormalization"
        ],
    )  # fmt: skip
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", opset)])
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    onnx.checker.check_model(model, full_check=True)
    return model


def analyse(proto: onnx.ModelProto, options: ChannelOptions) -> tuple[Model, Context, Channels]:
    model = read(proto)
    context = Context(model)
    return model, context, channels(model.graph, context, options)


def masked_original(proto: onnx.ModelProto, keep: np.ndarray, options: ChannelOptions) -> Model:
    """The model at its old size, in which nothing reads what is outside `keep`: slices of weights are zeroed, and operands of
    products between activations are multiplied by a mask."""
    model, _, analysis = analyse(proto, options)
    for slice_ in analysis.slices:
        if slice_.role == "input":
            mask = analysis.masks(slice_.ids, keep)[slice_.ids_axis]
            array = np.array(slice_.constant.array)
            array[(slice(None),) * slice_.axis + (np.flatnonzero(~mask),)] = 0
            slice_.constant.graph.set_constant(slice_.constant, array)
    masked = to_proto(model)
    nodes = []
    for node in masked.graph.node:
        if node.op_type in ("MatMul", "Gemm", "Einsum"):
            for index, name in enumerate(node.input):
                ids = analysis.ids.get(model.graph.value(name))
                if ids is not None and not keep[ids].all():
                    mask = keep[ids].astype(np.float32)
                    masked.graph.initializer.append(numpy_helper.from_array(mask, f"mask_{node.name}_{index}"))
                    nodes.append(helper.make_node("Mul", [name, f"mask_{node.name}_{index}"], [f"m_{node.name}_{index}"]))
                    node.input[index] = nodes[-1].output[0]
        nodes.append(node)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del masked.graph.node[:]
    masked.graph.node.extend(copies)
    return read(masked)


def check(proto: onnx.ModelProto, options: ChannelOptions, seed: int = 0, keep_sets: int = 20) -> int:
    """Random keep-sets give valid, smaller models that equal the masked original. Returns how many classes went."""
    removed, error = largest_error(proto, options, seed, keep_sets)
    assert error <= 1e-5
    return removed


def largest_error(proto: onnx.ModelProto, options: ChannelOptions, seed: int, keep_sets: int) -> tuple[int, float]:
    """How many classes went, and the largest difference relative to the largest element of the output."""
    random, removed, error = np.random.default_rng(seed), 0, 0.0
    for _ in range(keep_sets):
        model, context, analysis = analyse(proto, options)
        before = cost(model.graph, context)
        keep, refused = analysis.repair(random_keep(analysis, random))
        assert not refused
        removed += int((~keep).sum())
        remove_channels(analysis, keep, context)
        after = cost(model.graph, context)
        pruned = to_proto(model)
        onnx.checker.check_model(pruned, full_check=True)
        if not keep.all():
            assert after.parameters < before.parameters
            assert after.total_macs < before.total_macs or not before.total_macs
        expected, found = run(masked_original(proto, keep, options))["y"], run(read(pruned))["y"]
        assert found.shape == expected.shape
        error = max(error, float(np.abs(found - expected).max() / np.abs(expected).max()))
        assert np.isfinite(error)
    return removed, error


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_the_pruned_model_equals_the_masked_original(name):
    assert check(sequence_model(TOPOLOGIES[name]), ChannelOptions()) > 20


@pytest.mark.parametrize("heads", ["whole", "inner"])
@pytest.mark.parametrize("name", WITH_HEADS)
def test_attention_loses_whole_heads_or_positions_in_them(name, heads):
    assert check(sequence_model(WITH_HEADS[name]), ChannelOptions(heads=heads)) > 20


@pytest.mark.parametrize(("heads", "size"), [("whole", H), ("inner", D)])
def test_the_unit_of_an_attention_is_a_head_or_a_position(heads, size):
    """Inside heads, queries with keys and values on their own are groups; the scale of the scores is kept."""
    model, context, analysis = analyse(sequence_model(WITH_HEADS["separate_projections"]), ChannelOptions(heads=heads))
    within = [group for group in analysis.prunable if any(m.value.name.startswith("MatMul_0") for m in group.members)]
    assert [group.size for group in within] == [size]
    assert len([group for group in analysis.prunable if group.size == size]) == (1 if heads == "whole" else 2)
    scale = next(node for node in model.graph.nodes if node.op == "Mul").input(1)
    keep, _ = analysis.repair(random_keep(analysis, np.random.default_rng(1)))
    remove_channels(analysis, keep, context)
    assert float(scale.array) == np.float32(D**-0.5)


def test_the_pass_removes_heads_of_whole_models():
    model = read(sequence_model(WITH_HEADS["separate_projections"]))
    context = Context(model)
    PruneChannels(ratio=0.4, round_to=1).run(model.graph, context)
    shapes = [int(node.input(1).array[2]) for node in model.graph.nodes if node.op == "Reshape"]
    assert len(set(shapes[:3])) == 1
    assert shapes[0] < H
    assert shapes[3] == shapes[0] * D


def _normalized(op: str, opset: int, groups: int = 0) -> onnx.ModelProto:
    def build(b: Builder, x: str) -> Made:
        y = b.node("Add", [b.node("MatMul", [x, b.weight(C, 16, scale=0.3)]), b.weight(16)])
        if op.startswith("decomposed"):
            centered = y if "RMS" in op else b.node("Sub", [y, b.node("ReduceMean", [y], axes=[-1])])
            variance = b.node("ReduceMean", [b.node("Mul", [centered, centered])], axes=[-1])
            y = b.node("Div", [centered, b.node("Sqrt", [b.node("Add", [variance, b.constant(np.float32(1e-5))])])])
            return b.node("Mul", [y, b.weight(16, scale=1)]), 16
        if not groups:
            weights = [b.weight(16, scale=1)] + ([b.weight(16)] if op == "LayerNormalization" else [])
            return b.node(op, [y, *weights], axis=-1), 16
        y = b.node("Transpose", [y], perm=[0, 2, 1])
        y = b.node(op, [y, b.weight(16, scale=1), b.weight(16)], num_groups=groups)
        return b.node("Transpose", [y], perm=[0, 2, 1]), 16

    return sequence_model(build, opset)


OVER_CHANNELS = [("LayerNormalization", 17), ("RMSNormalization", 23), ("decomposed", 17), ("decomposed RMS", 17)]


@pytest.mark.parametrize(("op", "opset"), OVER_CHANNELS)
def test_a_normalization_over_the_channels_freezes_them(op, opset):
    _, _, analysis = analyse(_normalized(op, opset), ChannelOptions())
    assert not analysis.prunable
    reason = "it reduces over the channels" if op.startswith("decomposed") else "its statistics run over the channels"
    assert reason in [frozen.reason for frozen in analysis.frozen]


@pytest.mark.parametrize(("op", "opset"), OVER_CHANNELS)
def test_lossy_normalizations_take_statistics_of_what_is_left(op, opset):
    """The remark says so, and the result is the normalization of the channels that are left."""
    model = read(_normalized(op, opset))
    context = Context(model)
    PruneChannels(lossy=True, round_to=1).run(model.graph, context)
    assert any("lossy" in remark.reason and "channels that are left" in remark.reason for remark in context.remarks)
    pruned = to_proto(model)
    onnx.checker.check_model(pruned, full_check=True)
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in pruned.graph.initializer}
    by_op = [node for node in pruned.graph.node if node.op_type in ("MatMul", "Add", op, "Mul")]
    x = np.random.default_rng(0).standard_normal((3, T, C)).astype(np.float32)
    y = x @ arrays[by_op[0].input[1]] + arrays[by_op[1].input[1]]
    assert y.shape[-1] < 16
    centered = y if "RMS" in op else y - y.mean(-1, keepdims=True)
    y = centered / np.sqrt((centered**2).mean(-1, keepdims=True) + 1e-5)
    scale, *shift = [
        arrays[name] for node in by_op[2:-1] for name in node.input[1:] if arrays.get(name, x).shape == y.shape[-1:]
    ]
    expected = (y * scale + (shift[0] if shift else 0)) @ arrays[by_op[-1].input[1]]
    assert np.abs(run(model)["y"] - expected).max() < 1e-4 * np.abs(expected).max()


def test_group_normalization_loses_whole_groups_exactly():
    proto = _normalized("GroupNormalization", 21, groups=8)
    _, _, analysis = analyse(proto, ChannelOptions())
    assert [group.size for group in analysis.prunable] == [8]
    assert check(proto, ChannelOptions()) > 20


def test_lossy_group_normalization_loses_as_much_of_every_group():
    model, context, analysis = analyse(_normalized("GroupNormalization", 21, groups=2), ChannelOptions(lossy=True))
    (group,) = analysis.prunable
    keep = analysis.keep_all()
    keep[group.classes[:3]] = False
    remove_channels(analysis, keep, context)
    assert list(analysis.lossy.values()) == ["its statistics run over the channels that are left"]
    (node,) = (node for node in model.graph.nodes if node.op == "GroupNormalization")
    assert node.get("num_groups") == 2
    assert node.input(0).shape[1] == 10
    onnx.checker.check_model(to_proto(model), full_check=True)
    assert np.isfinite(run(model)["y"]).all()


def test_hidden_units_stay_where_an_input_is_their_first_state():

    builder = Builder()
    weights = [builder.weight(1, 24, C), builder.weight(1, 24, 8)]
    builder.nodes.append(helper.make_node("GRU", ["x", *weights, "", "", "s"], ["h"], hidden_size=8))
    builder.node("MatMul", ["h", builder.weight(8, 5)], "y")
    proto = builder.model({"x": [T, 2, C], "s": [1, 2, 8]}, {"y": [T, 1, 2, 5]})
    _, _, analysis = analyse(proto, ChannelOptions())
    assert not analysis.prunable
    assert "its initial state 's' keeps all its channels" in [frozen.reason for frozen in analysis.groups[0].frozen]


@pytest.mark.parametrize("heads", ["whole", "inner"])
def test_the_ledger_agrees_with_the_cost_after_surgery(heads):
    """Also for products of activations and for recurrent networks, which read two matrices."""
    for name in ("separate_projections", "multi_query", "einsum_heads", "gemm_of_activations", "stacked_lstm", "token_mixing"):
        model, context, analysis = analyse(sequence_model(BLOCKS[name]), ChannelOptions(heads=heads))
        ledger = Ledger(analysis, cost(model.graph, context))
        keep, _ = analysis.repair(random_keep(analysis, np.random.default_rng(1)))
        expected = ledger.macs(keep), ledger.parameters(keep)
        remove_channels(analysis, keep, context)
        found = cost(model.graph, context)
        assert (found.total_macs, found.parameters) == pytest.approx(expected), name


def test_rounding_counts_channels_not_heads():
    """Four heads of 8 channels: any number of heads gives multiples of 8."""

    def build(b: Builder, x: str) -> Made:
        return attention(b, x, heads=4, depth=8)

    model = read(sequence_model(build))
    context = Context(model)
    assert [group.span for group in channels(model.graph, context).prunable] == [8, 1]
    PruneChannels(ratio=0.3, round_to=8).run(model.graph, context)
    widths = {node.input(1).array.shape[1] for node in model.graph.nodes if node.op == "MatMul" and node.input(1).is_constant}
    assert all(width % 8 == 0 for width in widths - {5, 10})
    assert min(widths - {5, 10}) < 32


@pytest.mark.parametrize("options", [{"heads": "inner"}, {"heads": "whole"}, {"heads": "inner", "lossy": True}])
def test_a_latency_budget_measures_what_it_will_prune(options):
    """Candidates are analysed with the options of the pass: a class is a position here, and a head there."""
    model = read(sequence_model(BLOCKS["separate_projections"]))
    seen: list[int] = []

    def latency(candidate: Model) -> float:
        seen.append(cost(candidate.graph, Context(candidate)).total_macs)
        return float(seen[-1])

    context = Context(model, latency=latency)
    PruneChannels(ratio=0.3, budget="latency", round_to=1, **options).run(model.graph, context)
    left = cost(model.graph, context).total_macs
    assert left in seen
    assert left <= 0.7 * seen[0]


BLOCKS = {**TOPOLOGIES, **WITH_HEADS}


def test_a_bias_that_is_broadcast_over_the_channels_freezes_the_product():
    """Its single column is added to every channel; what the rule had found before it declined must not count."""

    def build(b: Builder, x: str) -> Made:
        flat = b.node("Reshape", [x, b.constant(np.array([-1, C], np.int64))])
        column = b.node("Gemm", [b.node("Gemm", [flat, b.weight(C, 16)]), b.weight(16, 1)])
        return b.node("Gemm", [b.node("Gemm", [flat, b.weight(C, 9)]), b.weight(9, 8), column]), 8

    _, _, analysis = analyse(sequence_model(build), ChannelOptions())
    assert sorted(group.size for group in analysis.prunable) == [16]
    assert "a single channel of its bias is broadcast over others" in [frozen.reason for frozen in analysis.frozen]
    assert check(sequence_model(build), ChannelOptions()) > 20
