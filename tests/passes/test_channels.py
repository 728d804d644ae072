"""The dependency analysis: what it couples, what it freezes and why, and that its slices are exact on every topology."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from models import Builder, conv_chain, residual_block

from deburr.ir.onnx_reader import read
from deburr.passes.analysis.channels import channels
from deburr.passes.analysis.reshape import runs_of
from deburr.passes.core import Context

from .pruning import analyse, check_exact, image_model
from .topologies import TOPOLOGIES


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_the_pruned_model_equals_the_masked_original(name):
    removed = check_exact(image_model(TOPOLOGIES[name]), np.random.default_rng(sorted(TOPOLOGIES).index(name)))
    assert removed > 20  # in each topology there is something to remove, in every keep-set


def test_a_residual_stage_is_one_group():
    _, _, analysis = analyse(residual_block())
    first, second, last = analysis.groups
    assert (first.size, second.size, last.size) == (8, 8, 10)
    assert first.name == "Conv_0_out"
    assert [frozen.reason for frozen in last.frozen] == ["it is an output of the graph"]
    assert "10 channels" in str(last)
    assert "frozen: it is an output of the graph" in str(last)


def test_macs_of_a_group_are_those_of_its_producers_and_consumers():
    _, _, analysis = analyse(conv_chain((3, 8, 16), size=8))
    assert [group.macs for group in analysis.groups] == [
        64 * 9 * (3 * 8 + 8 * 16),
        64 * 9 * 8 * 16 + 16 * 10,
        16 * 10,
    ]


@pytest.mark.parametrize(
    ("op", "attributes", "reason"),
    [
        ("LRN", {"size": 3}, "its statistics run over the channels"),
        ("Softmax", {"axis": 1}, "it normalizes over the channels"),
        ("ArgMax", {"axis": 1}, "it reduces over the channels"),
        ("CumSum", {}, "the analysis has no rule for CumSum"),
        ("Shape", {}, "its size is read at run time"),
    ],
)
def test_what_it_does_not_follow_is_frozen_with_a_reason(op, attributes, reason):
    builder = Builder()
    x = builder.conv("x", 3, 8)
    inputs = [x, builder.constant(np.int64(1))] if op == "CumSum" else [x]
    out = builder.node(op, inputs, **attributes)
    builder.node("Cast", [out], "y", to=1)
    shape = {"ArgMax": ["batch", 1, 6, 6], "Shape": [4]}.get(op, ["batch", 8, 6, 6])
    _, _, analysis = analyse(builder.model({"x": ["batch", 3, 6, 6]}, {"y": shape}))
    assert not analysis.prunable
    assert reason in [frozen.reason for frozen in analysis.groups[0].frozen]


def test_the_indices_of_a_pooling_freeze_its_channels():
    from onnx import helper

    builder = Builder()
    pooled = helper.make_node("MaxPool", [builder.conv("x", 3, 8)], ["p", "i"], kernel_shape=[2, 2])
    builder.nodes.append(pooled)
    builder.node("Add", [builder.conv("p", 8, 4, 1), builder.node("Cast", [builder.node("ReduceSum", ["i"])], to=1)], "y")
    _, _, analysis = analyse(builder.model({"x": ["batch", 3, 6, 6]}, {"y": ["batch", 4, 5, 5]}))
    assert analysis.groups[0].frozen[0].reason == "its indices count through the channels"


def test_only_the_part_that_reaches_an_output_is_frozen():
    """Half of a group is an output of the graph, the other half can go."""
    from onnx import helper

    builder = Builder()
    split = builder.constant(np.array([4, 4], np.int64))
    builder.nodes.append(helper.make_node("Split", [builder.conv("x", 3, 8), split], ["half", "y"], axis=1))
    builder.conv("half", 4, 2, 1, "z")
    proto = builder.model({"x": ["batch", 3, 6, 6]}, {"y": ["batch", 4, 6, 6], "z": ["batch", 2, 6, 6]})
    _, _, analysis = analyse(proto)
    (group,) = analysis.prunable
    assert analysis.always[group.classes].tolist() == [False] * 4 + [True] * 4
    assert check_exact(proto, np.random.default_rng(0)) > 20


def test_a_constant_that_is_an_output_is_never_sliced():
    builder = Builder()
    weight = builder.weight(8, 3, 3, 3)
    builder.conv(builder.node("Conv", ["x", weight]), 8, 4, 1, "y")
    proto = builder.model({"x": ["batch", 3, 6, 6]}, {"y": ["batch", 4, 4, 4], weight: [8, 3, 3, 3]})
    _, _, analysis = analyse(proto)
    assert not analysis.prunable
    assert analysis.groups[0].frozen[0].reason == "it is an output of the graph"


def test_a_subgraph_that_reads_a_value_freezes_it():
    from onnx import helper

    builder = Builder()
    x = builder.conv("x", 3, 8)
    branch = helper.make_graph(
        [helper.make_node("Neg", [x], ["out"])], "b", [], [helper.make_tensor_value_info("out", 1, None)]
    )
    builder.node("If", [builder.constant(np.array(True))], "i", then_branch=branch, else_branch=branch)
    builder.conv(x, 8, 4, 1, "y")
    builder.node("Identity", ["i"], "z")
    proto = builder.model({"x": ["batch", 3, 6, 6]}, {"y": ["batch", 4, 6, 6], "z": ["batch", 8, 6, 6]})
    _, _, analysis = analyse(proto)
    assert not analysis.prunable
    assert "a subgraph reads it" in [frozen.reason for frozen in analysis.groups[0].frozen]


def test_an_unknown_domain_is_frozen():
    from onnx import helper

    builder = Builder()
    builder.nodes.append(helper.make_node("Mystery", [builder.conv("x", 3, 8)], ["m"], domain="com.example"))
    builder.node("Identity", ["m"], "y")
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)]
    graph = {"x": ["batch", 3, 6, 6]}, {"y": ["batch", 8, 6, 6]}
    _, _, analysis = analyse(builder.model(*graph, opset_imports=opsets))
    assert [frozen.reason for frozen in analysis.frozen] == ["the operator com.example.Mystery is unknown"]


def test_a_tensor_that_would_lose_everything_gets_its_best_class_back():
    _, _, analysis = analyse(image_model(TOPOLOGIES["chunks"]))
    group = max(analysis.prunable, key=lambda group: group.size)
    keep = analysis.keep_all()
    keep[group.classes] = False
    scores = np.random.default_rng(0).random(analysis.class_count)
    repaired, refused = analysis.repair(keep, scores)
    assert not refused
    assert all(analysis.masks(ids, repaired) is not None for ids in analysis.distinct_arrays())
    assert repaired[group.classes[np.argmax(scores[group.classes])]]


def test_a_keep_set_that_leaves_no_box_leaves_the_group_alone():
    _, _, analysis = analyse(image_model(TOPOLOGIES["residual"]))
    group = analysis.prunable[0]
    value = group.members[0].value
    analysis.ids[value] = group.classes.reshape(1, 4, 2, 1)  # as if two axes shared the channels
    keep = analysis.keep_all()
    keep[group.classes[:3]] = False
    repaired, refused = analysis.repair(keep)
    assert refused == (group,)
    assert repaired.all()


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.data())
def test_runs_of_a_reshape_multiply_up(dims, data):
    total = int(np.prod(dims))
    divisors = [size for size in range(1, total + 1) if total % size == 0]
    first = data.draw(st.sampled_from(divisors))
    runs = runs_of(("batch", *dims), [0, first, -1])
    assert [axis for axes, _ in runs for axis in axes] == list(range(len(dims) + 1))
    assert [size for _, sizes in runs[1:] for size in sizes] == [first, total // first]
    assert runs[0][0] == range(1)


def test_an_unknown_size_that_a_reshape_leaves_no_room_for_is_one():
    assert runs_of((6, None, 2, 8), [6, 1, 16]) == [(range(1), [6]), (range(1, 2), [1]), (range(2, 4), [16])]


def test_an_analysis_of_a_densenet_sized_graph_takes_seconds():
    builder = Builder()
    x, width = builder.conv("x", 3, 64), 64
    for layers in (6, 12, 24, 16):
        for _ in range(layers):
            inner = builder.conv(builder.node("Relu", [builder.batch_norm(x, width)]), width, 128, 1)
            new = builder.conv(builder.node("Relu", [builder.batch_norm(inner, 128)]), 128, 32)
            x, width = builder.node("Concat", [x, new], axis=1), width + 32
        if width < 1024 or layers != 16:
            x, width = builder.conv(x, width, width // 2, 1), width // 2
    builder.conv(x, width, 5, 1, "y")
    model = read(builder.model({"x": ["batch", 3, 8, 8]}, {"y": ["batch", 5, 8, 8]}))
    start = time.perf_counter()
    analysis = channels(model.graph, Context(model))
    assert time.perf_counter() - start < 5
    assert len(analysis.prunable) >= 120


@pytest.mark.slow
def test_the_analysis_of_a_chain_of_20000_nodes_is_linear():
    def seconds(blocks: int) -> float:
        builder = Builder()
        x = builder.conv("x", 4, 8)
        for _ in range(blocks):
            inner = builder.conv(builder.node("Neg", [x]), 8, 8, 1)
            x = builder.node("Relu", [builder.node("Add", [x, inner])])
        builder.conv(x, 8, 2, 1, "y")
        model = read(builder.model({"x": ["batch", 4, 4, 4]}, {"y": ["batch", 2, 4, 4]}))
        start = time.process_time()
        channels(model.graph, Context(model))
        return time.process_time() - start

    assert seconds(5000) < 12 * seconds(1000)
