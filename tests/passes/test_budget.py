"""Budgets, scopes and layers left alone: over random scores, every combination gives a sound keep-set that meets its budget."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from models import Builder, conv_chain, residual_block

from deburr.ir.errors import DeburrError
from deburr.ir.onnx_reader import read
from deburr.ir.onnx_writer import to_proto
from deburr.passes import registry
from deburr.passes.analysis.channels import channels
from deburr.passes.analysis.cost import cost
from deburr.passes.core import Context
from deburr.passes.pipeline import parse
from deburr.passes.prune.budget import Ledger, Limits, Ordered, choose
from deburr.passes.prune.channels import PruneChannels
from deburr.passes.prune.scope import compare_within, leave_alone

from .pruning import analyse, image_model
from .topologies import TOPOLOGIES

WIDE = conv_chain((3, 32, 48, 32))


@cache
def _wired(name):
    return image_model(TOPOLOGIES[name])


def _pruned(proto, lanes=None, latency=None, **options):
    model = read(proto)
    context = Context(model, lanes=lanes, latency=latency)
    PruneChannels(**options).run(model.graph, context)
    return model, context


def _sizes(model):
    return [group.size for group in channels(model.graph, Context(model)).prunable]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_combination_meets_its_budget_within_a_rounding_step_or_says_why_not(data):
    name = data.draw(st.sampled_from(["chain", "residual", "dense", "depthwise", "grouped", "added_concats", "flattened"]))
    seed, ratio = data.draw(st.integers(0, 99)), data.draw(st.sampled_from([0.0, 0.2, 0.5, 0.9]))
    pass_ = PruneChannels(
        ratio=ratio, criterion="random", budget=data.draw(st.sampled_from(["channels", "macs", "parameters", "bytes"])),
        round_to=data.draw(st.sampled_from([1, 2, 4, None])), minimum=data.draw(st.sampled_from([1, 3])),
        per_cost=data.draw(st.booleans()), scope=data.draw(st.sampled_from(["global", "group", "isomorphic"])),
        keep=data.draw(st.sampled_from([(), ("Conv_0",)])),
    )  # fmt: skip
    assert tuple(parse(str(pass_)).passes) == (pass_,)
    model, context, analysis = analyse(_wired(name))
    analysis, context.seed = leave_alone(analysis, pass_.keep, ""), seed
    before = Ledger(analysis, cost(model.graph, context)).of(pass_.budget, analysis.keep_all())
    first = next(iter(model.graph.nodes)).input(1).shape
    pass_.run(model.graph, context)  # raises E205 where the keep-set is not sound
    again = leave_alone(channels(model.graph, context), pass_.keep, "")
    after = Ledger(again, cost(model.graph, context)).of(pass_.budget, again.keep_all())
    said = [remark for remark in context.remarks if "can go" in remark.reason]
    # A depthwise convolution that is left with one channel is a plain one: two classes where there was one.
    assume(pass_.budget != "channels" or all(group.size > 1 for group in again.groups))
    assert bool(said) == (after > (1 - ratio) * before + 0.5)
    if pass_.keep:
        assert next(iter(model.graph.nodes)).input(1).shape == first


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 999), ratio=st.floats(0.05, 0.9), round_to=st.sampled_from([1, 4, 8]))
def test_one_channel_fewer_would_miss_the_budget(seed, ratio, round_to):
    model, context, analysis = analyse(WIDE)
    ledger = Ledger(analysis, cost(model.graph, context))
    scores = np.random.default_rng(seed).uniform(size=analysis.class_count)
    limits = Limits(ratio, "macs", round_to, 1)
    chosen, ordered = choose(analysis, ledger, scores, limits), Ordered(analysis, scores, limits)
    counts = [int(chosen[group.classes].sum()) for group in analysis.prunable]
    assert all(count % round_to == 0 and count > 0 for count in counts)
    removed = next(number for number in range(ordered.count + 1) if np.array_equal(ordered.keep(number), chosen))
    goal = (1 - ratio) * ledger.macs(analysis.keep_all())
    assert ledger.macs(chosen) <= goal or np.array_equal(chosen, ordered.keep(ordered.count))
    assert removed == 0 or ledger.macs(ordered.keep(removed - 1)) > goal


def test_a_group_that_loses_all_keeps_a_whole_vector():
    model, context, analysis = analyse(WIDE)
    scores = np.ones(analysis.class_count)
    scores[analysis.prunable[0].classes] = 0
    chosen = choose(analysis, Ledger(analysis, cost(model.graph, context)), scores, Limits(0.5, "macs", 8, 1))
    assert chosen[analysis.prunable[0].classes].sum() == 8


def test_bytes_count_the_size_of_elements():
    """Of two equal layers, one stored as float16: its channels are half of the file's others."""
    builder = Builder()
    x = builder.node("Relu", [builder.conv("x", 3, 8)])
    half = builder.constant(builder.random.standard_normal((8, 1, 1)).astype(np.float16))
    scale = builder.node("Cast", [half], to=1)
    builder.conv(builder.node("Mul", [x, scale]), 8, 4, 1, "y")
    model, context, analysis = analyse(builder.model({"x": ["batch", 3, 6, 6]}, {"y": ["batch", 4, 6, 6]}))
    found = cost(model.graph, context)
    ledger = Ledger(analysis, found)
    assert found.parameter_bytes == 4 * (8 * 27 + 8 + 4 * 8 + 4) + 2 * 8
    assert ledger.bytes(analysis.keep_all()) == found.parameter_bytes


def test_the_budget_of_bytes_shows_in_the_file():
    model, _ = _pruned(WIDE, budget="bytes", round_to=1)
    before, after = (len(proto.SerializeToString()) for proto in (WIDE, to_proto(model)))
    assert 0.45 < after / before < 0.55


def test_group_scope_takes_the_same_share_of_every_group():
    model, _ = _pruned(WIDE, budget="channels", scope="group", round_to=1)
    assert _sizes(model) == [16, 24, 16]


def test_isomorphic_scope_ranks_groups_of_one_structure_together():
    """Two layers of the same kind and one of another: the first two compete, and lose half together."""
    model, context, analysis = analyse(residual_block(channels=8))
    scores = np.random.default_rng(0).uniform(size=analysis.class_count)
    ranked = compare_within(analysis, scores, "isomorphic")
    for group in analysis.prunable:
        np.testing.assert_array_equal(np.argsort(ranked[group.classes]), np.argsort(scores[group.classes]))
    chain, _, wide = analyse(conv_chain((3, 8, 8, 8)))
    scores = np.random.default_rng(1).uniform(size=wide.class_count)
    first, second, last = (group.classes for group in wide.prunable)
    scores[first] += 1
    ranked = compare_within(wide, scores, "isomorphic")
    assert ranked[second].max() < ranked[first].min()  # Conv to Conv, twice
    np.testing.assert_allclose(np.sort(ranked[last]), np.arange(1, 9) / 8)  # Conv to Gemm: on its own
    assert chain.graph is not model.graph
    assert context.model is model


@pytest.mark.parametrize(("lanes", "step"), [(None, 8), (16, 16), (4, 4)])
def test_counts_follow_the_vectors_of_the_target(lanes, step):
    model, _ = _pruned(conv_chain((3, 64, 64)), lanes=lanes, ratio=0.4)
    assert all(size % step == 0 for size in _sizes(model))
    assert min(_sizes(model)) < 64


def test_keep_leaves_layers_alone_by_node_and_by_value():
    names = [node.name for node in read(WIDE).graph.nodes if node.op == "Conv"]
    model, _ = _pruned(WIDE, keep=(names[1],), budget="channels", ratio=0.3, round_to=1)
    widths = [node.input(1).shape for node in model.graph.nodes if node.op == "Conv"]
    assert widths[1] == (48, 32, 3, 3)  # neither what it makes nor what it reads
    assert widths[2][0] < 32
    value = next(node for node in read(WIDE).graph.nodes if node.name == names[0]).output().name
    model, context = _pruned(WIDE, keep=(value,), ratio=0.99, round_to=1)
    assert next(iter(model.graph.nodes)).input(1).shape == (32, 3, 3, 3)
    assert context.remarks[-1].hint == "name fewer layers in keep, or see what is frozen"


def test_a_pattern_keeps_every_match():
    model, _ = _pruned(WIDE, keep=("Conv_*",), ratio=0.2)
    assert to_proto(model).SerializeToString() == to_proto(read(WIDE)).SerializeToString()


def test_a_pattern_that_matches_nothing():
    with pytest.raises(DeburrError) as caught:
        _pruned(WIDE, keep=("Conv_01",))
    error = caught.value
    assert (error.code, error.what) == ("E203", "keep: nothing is called 'Conv_01'")
    assert error.where == "pass prune-channels{keep=(Conv_01)}"
    assert error.why == "no node and no value of the graph matches"
    assert error.hint.startswith("did you mean 'Conv_0'")


def _fake_latency(calls, floor=0.2):
    def latency(model):
        made = floor + 1e-6 * cost(model.graph, Context(model)).total_macs
        calls.append(made)
        return made

    return latency


@pytest.mark.parametrize("scope", ["global", "group", "isomorphic"])
@pytest.mark.parametrize("round_to", [1, 8])
def test_a_latency_budget_is_met_with_few_measurements(round_to, scope):
    calls: list[float] = []
    model, context = _pruned(WIDE, latency=_fake_latency(calls), budget="latency", ratio=0.4, round_to=round_to, scope=scope)
    assert len(calls) <= 8
    found = _fake_latency([])(model)
    assert found <= 0.6 * calls[0]
    assert found > (0.6 - 0.12) * calls[0]
    assert context.remarks[-1].reason == (
        f"{len(calls)} models measured: {calls[0]:.4g} ms before, {found:.4g} ms with what was chosen, "
        f"{0.6 * calls[0]:.4g} ms wanted"
    )


def test_a_latency_that_cannot_be_reached_gives_the_fastest_and_says_so():
    calls: list[float] = []
    model, context = _pruned(WIDE, latency=_fake_latency(calls, 9), budget="latency", ratio=0.9, round_to=1)
    assert _fake_latency([], 9)(model) == min(calls)
    assert context.remarks[-1].hint == "the budget was not met: see what is frozen, or what of the time no channel takes"


def test_a_latency_budget_without_a_target():
    with pytest.raises(DeburrError) as caught:
        _pruned(WIDE, budget="latency")
    assert str(caught.value) == (
        "error[E206]: the budget latency needs a target to measure on, pass prune-channels{budget=latency}: none was given; "
        "give --target NAME, or another budget such as macs"
    )


def test_every_criterion_has_a_name_in_pipeline_text():
    for name in registry.criteria():
        assert tuple(parse(f"prune-channels{{criterion={name}}}").passes) == (PruneChannels(criterion=name),)
