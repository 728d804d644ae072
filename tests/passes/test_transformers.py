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
from deburr.passes.prune.channels import PruneChannels
from deburr.passes.prune.surgery import remove_channels

from .pruning import random_keep, run
from .topologies_transformer import TOPOLOGIES, WITH_HEADS, C, D, H, Made, T

Build = Callable[[Builder, str], Made]


def sequence_model(build: Build, opset: int = 17) -> onnx.ModelProto:
    """`build` makes a tensor [..., width]; a product with [width, 5] reads it as "y"."""
    builder = Builder()
    made, width = build(builder, "x")
    builder.node("MatMul", [made, builder.weight(width, 5, scale=width**-0.5)], "y")
    graph = helper.make_graph(
        builder.nodes, "tiny", [helper.make_tensor_value_info("x", 1, ["batch", T, C])],
        [helper.make_tensor_value_info("y", 1, None)], builder.initializers,
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
    random, removed = np.random.default_rng(seed), 0
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
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    return removed


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_the_pruned_model_equals_the_masked_original(name):
    assert check(sequence_model(TOPOLOGIES[name]), ChannelOptions()) > 20


@pytest.mark.parametrize("heads", ["whole", "inner"])
@pytest.mark.parametrize("name", WITH_HEADS)
def test_attention_loses_whole_heads_or_positions_in_them(name, heads):
    assert check(sequence_model(WITH_HEADS[name]), ChannelOptions(heads=heads)) > 20
