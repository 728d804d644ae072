"""Importance criteria: what each finds unimportant, what it needs, and what it does where it has nothing to look at."""

from __future__ import annotations

import numpy as np
import pytest
from models import Builder, concat_branches, conv_chain, depthwise_separable, residual_block, samples

from deburr.ir.errors import DeburrError
from deburr.ir.onnx_reader import read
from deburr.ir.samples import Samples
from deburr.passes import registry
from deburr.passes.analysis.channels import channels
from deburr.passes.core import Context
from deburr.passes.prune.channels import PruneChannels

MODELS = {
    "chain": conv_chain((3, 16, 12)),
    "residual": residual_block(shortcut=True),
    "depthwise": depthwise_separable(),
    "concat": concat_branches(),
}


def _scores(criterion, proto, data=None):
    """Scores of the first prunable group, and the context."""
    model = read(proto)
    context = Context(model, data=Samples(samples(proto, 24, seed=1) if data is None else data))
    analysis = channels(model.graph, context)
    return registry.criteria()[criterion](analysis, context)[analysis.prunable[0].classes], context


def _two_layers(weight, consumer, channels_in=3):
    """x -> Conv 1x1 `weight` -> Conv 1x1 `consumer`."""
    builder = Builder()
    hidden = builder.node("Conv", ["x", builder.constant(np.float32(weight))], "hidden")
    builder.node("Conv", [hidden, builder.constant(np.float32(consumer))], "y")
    return builder.model({"x": ["batch", channels_in, 4, 4]}, {"y": ["batch", len(consumer), 4, 4]})


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("criterion", sorted(registry.criteria()))
def test_every_criterion_gives_finite_scores_and_prunes(criterion, model):
    scores, context = _scores(criterion, MODELS[model])
    assert np.isfinite(scores).all()
    assert (scores >= 0).all()
    assert len(np.unique(scores)) > 1
    analysis = channels(context.model.graph, context)
    sizes = sum(group.size for group in analysis.prunable)
    PruneChannels(criterion=criterion, round_to=1, budget="channels").run(context.model.graph, context)
    assert sum(group.size for group in channels(context.model.graph, context).prunable) == sizes - -(-sizes // 2)


@pytest.mark.parametrize("criterion", ["obd", "reconstruction", "wanda"])
def test_without_data(criterion):
    model = read(MODELS["chain"])
    with pytest.raises(DeburrError) as caught:
        PruneChannels(criterion=criterion).run(model.graph, Context(model))
    assert str(caught.value) == f"error[E206]: the criterion {criterion} needs calibration data; give --data FILE.npz"


def test_batch_norm_ranks_by_the_scale():
    proto = conv_chain((3, 8))
    model = read(proto)
    scales = next(node for node in model.graph.nodes if node.op == "BatchNormalization").input(1).array
    scores, context = _scores("batch-norm", proto)
    np.testing.assert_allclose(scores, np.abs(scales) / np.abs(scales).mean(), rtol=1e-6)
    assert not context.remarks


def test_batch_norm_without_one_falls_back_to_l2_and_says_so():
    proto = concat_branches()
    scores, context = _scores("batch-norm", proto)
    np.testing.assert_allclose(scores, _scores("l2", proto)[0])
    reasons = {remark.reason for remark in context.remarks}
    assert "ranked by l2: not all of its channels go through a BatchNormalization" in reasons
    assert "put prune-channels before fold-batch-norm" in {remark.hint for remark in context.remarks}


def test_geometric_median_is_the_sum_of_distances():
    random = np.random.default_rng(3)
    weight = random.standard_normal((6, 3, 1, 1))
    weight[4] = weight.mean(axis=0)  # what the others are around
    scores, _ = _scores("geometric-median", _two_layers(weight, random.standard_normal((5, 6, 1, 1))))
    flat = np.float32(weight).reshape(6, 3).astype(float)
    expected = np.linalg.norm(flat[:, None] - flat[None], axis=2).sum(axis=1)
    np.testing.assert_allclose(scores, expected / expected.mean(), rtol=1e-6)
    assert scores.argmin() == 4


def test_wanda_sees_that_a_large_weight_reads_a_small_input():
    random = np.random.default_rng(4)
    weight, consumer = random.standard_normal((4, 3, 1, 1)), random.standard_normal((5, 4, 1, 1))
    weight[2] *= 0.01
    consumer[:, 2] *= 5
    proto = _two_layers(weight, consumer)
    assert _scores("wanda", proto)[0].argmin() == 2
    assert np.abs(np.float32(consumer)).sum(axis=(0, 2, 3)).argmin() != 2
    data = samples(proto, 24, seed=1)
    hidden = np.einsum("nihw,oi->nohw", data["x"], np.float32(weight)[:, :, 0, 0])
    norm = np.sqrt(np.square(hidden).mean(axis=(0, 2, 3)))
    expected = np.abs(np.float32(consumer)).sum(axis=(0, 2, 3)) * norm
    np.testing.assert_allclose(_scores("wanda", proto)[0], expected / expected.mean(), rtol=1e-4)


def test_obd_is_half_the_error_of_zeroing_the_channel():
    """For 1x1 kernels the diagonal is all there is: the prediction is exact."""
    random = np.random.default_rng(5)
    weight, consumer = random.standard_normal((4, 3, 1, 1)), random.standard_normal((5, 4, 1, 1))
    proto = _two_layers(weight, consumer)
    scores, _ = _scores("obd", proto)
    x = samples(proto, 24, seed=1)["x"]
    hidden = np.einsum("nihw,oi->nohw", x, np.float32(weight)[:, :, 0, 0])
    parts = np.einsum("nihw,oi->inohw", hidden, np.float32(consumer)[:, :, 0, 0])
    whole = parts.sum(axis=0)
    errors = [np.square(part).sum(axis=1).mean() for part in parts]
    variance = np.square(whole - whole.mean(axis=(0, 2, 3), keepdims=True)).sum(axis=1).mean()
    np.testing.assert_allclose(scores, 0.5 * np.array(errors) / variance, rtol=1e-4)


@pytest.mark.parametrize("criterion", ["obd", "reconstruction", "wanda"])
def test_a_group_that_nothing_measures_is_not_the_first_to_go(criterion):
    """A transposed convolution is not seen as a matrix: its inputs once had score 0."""
    builder = Builder()
    x = builder.node("Relu", [builder.conv("x", 3, 8)])
    x = builder.node("ConvTranspose", [x, builder.weight(8, 6, 1, 1)])
    builder.conv(x, 6, 4, 1, "y")
    proto = builder.model({"x": ["batch", 3, 6, 6]}, {"y": ["batch", 4, 6, 6]})
    scores, context = _scores(criterion, proto)
    assert scores.min() > 0
    assert np.argsort(scores).tolist() == np.argsort(_scores("l2", proto)[0]).tolist()
    assert [remark for remark in context.remarks if remark.reason.startswith("ranked by l2: no consumer of it")]


def test_grouped_consumers_count_in_obd():
    builder = Builder()
    x = builder.node("Relu", [builder.conv("x", 3, 8)])
    x = builder.conv(x, 8, 8, group=2)
    builder.conv(x, 8, 4, 1, "y")
    scores, context = _scores("obd", builder.model({"x": ["batch", 3, 6, 6]}, {"y": ["batch", 4, 6, 6]}))
    assert len(scores) == 4  # both groups lose the same positions
    assert scores.min() > 0
    assert not context.remarks or all("l2" not in remark.reason for remark in context.remarks)


def test_a_plugin_criterion_is_found_by_name(monkeypatch):
    """A criterion is a function; the group of entry points is `deburr.criteria`."""
    from importlib.metadata import EntryPoint

    point = EntryPoint("last-first", f"{__name__}:_last_first", "deburr.criteria")
    monkeypatch.setattr(registry, "_entry_points", lambda group: [point] if group == "deburr.criteria" else [])
    registry.reload()
    try:
        model = read(conv_chain((3, 8)))
        before = np.array(next(iter(model.graph.nodes)).input(1).array)
        PruneChannels(criterion="last-first", budget="channels", round_to=1).run(model.graph, Context(model))
        np.testing.assert_array_equal(next(iter(model.graph.nodes)).input(1).array, before[:4])
    finally:
        monkeypatch.undo()
        registry.reload()


def _last_first(analysis, context):
    return -np.arange(analysis.class_count, dtype=np.float64)


def test_few_samples_do_not_make_channels_redundant():
    """Behind a global pooling every sample is one row: with fewer rows than channels, each seems to follow from the others."""
    builder = Builder()
    pooled = builder.node("GlobalAveragePool", [builder.node("Relu", [builder.conv("x", 32, 32, 1)])])
    builder.gemm(builder.node("Flatten", [pooled]), 32, 8, "y")
    proto = builder.model({"x": ["batch", 32, 2, 2]}, {"y": ["batch", 8]})
    images = np.random.default_rng(0).standard_normal((2048, 32, 2, 2)).astype(np.float32)
    few, many = (np.median(_scores("reconstruction", proto, {"x": images[:count]})[0]) for count in (12, 2048))
    assert few > 0.2 * many
