"""The pruning pass: budgets, rounding, criteria, remarks, and what the reference remembers."""

from __future__ import annotations

import numpy as np
import pytest
from models import Builder, concat_branches, conv_chain, residual_block

from deburr.ir.errors import DeburrError
from deburr.ir.onnx_reader import read
from deburr.ir.onnx_writer import to_proto
from deburr.ir.samples import Samples
from deburr.passes.analysis.channels import channels
from deburr.passes.analysis.cost import cost
from deburr.passes.core import Context
from deburr.passes.prune.budget import Ledger, Limits, choose
from deburr.passes.prune.channels import PruneChannels
from deburr.passes.prune.importance import l2
from deburr.passes.prune.surgery import remove_channels

from .pruning import analyse, image_model, mask_consumers, random_keep, run
from .topologies import TOPOLOGIES


def _prune(proto, **options):
    model = read(proto)
    random = np.random.default_rng(5)
    data = Samples({"x": random.standard_normal((40, 3, 8, 8)).astype(np.float32)})
    context = Context(model, data=data)
    before = cost(model.graph, context)
    PruneChannels(**options).run(model.graph, context)
    return model, context, before, cost(model.graph, context)


WIDE = conv_chain((3, 32, 48, 32))


@pytest.mark.parametrize(
    ("criterion", "ratio"), [("l1", 0.3), ("l2", 0.2), ("l2", 0.5), ("l2", 0.8), ("random", 0.5), ("reconstruction", 0.5)]
)
def test_the_budget_of_macs_is_met_and_not_overshot(ratio, criterion):
    _, context, before, after = _prune(WIDE, ratio=ratio, criterion=criterion, round_to=1)
    left = after.total_macs / before.total_macs
    assert 1 - ratio - 0.06 < left <= 1 - ratio
    assert [remark.reason for remark in context.remarks] == ["keeps axis 1 of 'y': it is an output of the graph"]


@pytest.mark.parametrize("ratio", [0.3, 0.6])
def test_the_budget_of_parameters_is_met(ratio):
    _, _, before, after = _prune(WIDE, ratio=ratio, budget="parameters", round_to=4)
    assert 1 - ratio - 0.12 < after.parameters / before.parameters <= 1 - ratio


def test_the_ledger_agrees_with_the_cost_after_surgery():
    for name in ("residual_projection", "dense", "depthwise", "grouped", "transposed", "flattened", "channels_last"):
        model, context, analysis = analyse(image_model(TOPOLOGIES[name]))
        ledger = Ledger(analysis, cost(model.graph, context))
        keep, _ = analysis.repair(random_keep(analysis, np.random.default_rng(1)))
        expected = ledger.macs(keep), ledger.parameters(keep)
        remove_channels(analysis, keep, context)
        found = cost(model.graph, context)
        assert (found.total_macs, found.parameters) == pytest.approx(expected), name


@pytest.mark.parametrize("round_to", [1, 4, 8])
def test_every_group_keeps_a_multiple(round_to):
    model, context, *_ = _prune(WIDE, round_to=round_to)
    sizes = [group.size for group in channels(model.graph, context).prunable]
    assert sizes
    assert all(size % round_to == 0 for size in sizes)


def test_minimum():
    model, context, *_ = _prune(WIDE, ratio=0.99, round_to=1, minimum=5)
    assert min(group.size for group in channels(model.graph, context).prunable) == 5
    assert "can go" in context.remarks[-1].reason
    assert context.remarks[-1].hint == "lower minimum, or see what is frozen"


def test_ratio_zero_changes_nothing():
    model = read(WIDE)
    revision = model.revision
    PruneChannels(ratio=0.0).run(model.graph, Context(model))
    assert model.revision == revision


def test_the_weakest_channels_go():
    proto = conv_chain((3, 8, 8))
    model = read(proto)
    weight = next(value for value in model.graph.constants if value.shape == (8, 3, 3, 3))
    weak = np.array(weight.array)
    weak[[1, 6]] *= 1e-3
    model.graph.set_constant(weight, weak)
    context = Context(model)
    analysis = channels(model.graph, context)
    scores = l2(analysis, context)
    group = analysis.prunable[0]
    assert set(np.argsort(scores[group.classes])[:2]) == {1, 6}


def test_reconstruction_spares_what_nothing_else_can_stand_in_for():
    """Of two equal channels the first costs nothing; after that the other cannot go either."""
    builder = Builder()
    weight = builder.random.standard_normal((4, 3, 1, 1)).astype(np.float32)
    weight[3] = weight[0]
    x = builder.node("Conv", ["x", builder.constant(weight)])
    builder.conv(x, 4, 5, 1, "y")
    model = read(builder.model({"x": ["batch", 3, 8, 8]}, {"y": ["batch", 5, 8, 8]}))
    random = np.random.default_rng(0)
    context = Context(model, data=Samples({"x": random.standard_normal((16, 3, 8, 8)).astype(np.float32)}))
    from deburr.passes.prune.reconstruction import reconstruction

    analysis = channels(model.graph, context)
    scores = reconstruction(analysis, context)[analysis.prunable[0].classes]
    assert np.argmin(scores) in (0, 3)
    assert max(scores[0], scores[3]) > 10 * min(scores[0], scores[3])
    assert scores.min() < 0.25 * np.sort(scores)[1]


def test_reconstruction_needs_data():
    model = read(WIDE)
    with pytest.raises(DeburrError, match=r"error\[E206\]: the criterion reconstruction needs calibration data"):
        PruneChannels(criterion="reconstruction").run(model.graph, Context(model))


def test_choose_removes_no_more_than_it_must():
    model, context, analysis = analyse(WIDE)
    ledger = Ledger(analysis, cost(model.graph, context))
    keep = choose(analysis, ledger, l2(analysis, context), Limits(0.5, "channels", 1, 1))
    units = sum(group.size for group in analysis.prunable)
    assert (~keep).sum() == units // 2


@pytest.mark.parametrize("proto", [residual_block(), residual_block(shortcut=True), concat_branches()])
def test_the_pass_is_exact_and_valid(proto):
    import onnx

    model = read(proto)
    context = Context(model)
    PruneChannels(ratio=0.5, round_to=1).run(model.graph, context)
    onnx.checker.check_model(to_proto(model), full_check=True)
    reference = context.reference
    assert reference is not None
    masked, _, analysis = analyse(proto)
    keep = analysis.keep_all()
    for value, ids in analysis.ids.items():
        for axis, kept in reference.kept.get(value.name, {}).items():
            classes = ids.reshape(-1) if ids.shape[axis] == ids.size else np.zeros(0, np.int64)
            keep[np.setdiff1d(classes, classes[kept])] = False
    assert not keep.all()
    mask_consumers(analysis, keep)
    for name, expected in run(masked).items():
        np.testing.assert_allclose(run(model)[name], expected, rtol=1e-4, atol=1e-5)


def test_the_reference_follows_through_two_prunings():
    model = read(WIDE)
    context = Context(model)
    for _ in range(2):
        PruneChannels(ratio=0.4, round_to=1).run(model.graph, context)
    reference = context.reference
    assert reference is not None
    weights = {value.name: value.array for value in reference.model.graph.constants}
    first = next(node for node in model.graph.nodes if node.op == "Conv")
    kept = reference.kept[first.output().name][1]
    assert len(kept) < 32
    np.testing.assert_array_equal(first.input(1).array, weights[first.input(1).name][kept])


@pytest.mark.parametrize("options", [{"ratio": 1.0}, {"ratio": -0.1}, {"round_to": 0}, {"minimum": 0}])
def test_options_out_of_range(options):
    model = read(WIDE)
    with pytest.raises(DeburrError, match="is out of range") as caught:
        PruneChannels(**options).run(model.graph, Context(model))
    assert caught.value.code == "E203"


def test_an_unknown_criterion_is_named_with_the_list():
    model = read(WIDE)
    with pytest.raises(
        DeburrError,
        match=r"no criterion 'l3'.*there are batch-norm, geometric-median, l1, l2, obd, random, reconstruction, wanda",
    ):
        PruneChannels(criterion="l3").run(model.graph, Context(model))


def test_the_same_seed_gives_the_same_model():
    def bytes_of(seed):
        model = read(WIDE)
        PruneChannels(criterion="random").run(model.graph, Context(model, seed=seed))
        return to_proto(model).SerializeToString(deterministic=True)

    assert bytes_of(1) == bytes_of(1)
    assert bytes_of(1) != bytes_of(2)
