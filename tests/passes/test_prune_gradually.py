"""Pruning in measured steps: what each step takes, where it stops, what an interrupt leaves."""

from __future__ import annotations

import numpy as np
import pytest
from models import conv_chain

from deburr.ir.errors import DeburrError
from deburr.ir.evaluate import Evaluator
from deburr.ir.onnx_reader import read
from deburr.ir.samples import Samples
from deburr.passes import manager
from deburr.passes.core import Context
from deburr.passes.pipeline import parse
from deburr.passes.prune.gradually import PruneGradually
from deburr.passes.prune.trial import PruningTrials

PROTO = conv_chain((3, 24, 16))
IMAGES = np.random.default_rng(0).standard_normal((60, 3, 8, 8)).astype(np.float32)
OPTIONS = "round_to=1,criterion=l2,per_cost=false"


def _pruned(pipeline, *, labelled=False):
    model = read(PROTO)
    labels = Evaluator(model).run({"x": IMAGES})["y"].argmax(1) if labelled else None
    context = Context(model, data=Samples({"x": IMAGES}, labels))
    manager.run(parse(pipeline), context)
    return context


def _macs(context):
    from deburr.passes.analysis.cost import cost

    return cost(context.model.graph, context).total_macs


@pytest.fixture
def cuts(monkeypatch):
    """The share of the work that is gone with every trial that was adopted."""
    seen = []
    adopt = PruningTrials.adopt

    def spy(trials, trial):
        seen.append(trials.cut(trial))
        adopt(trials, trial)

    monkeypatch.setattr(PruningTrials, "adopt", spy)
    return seen


@pytest.mark.parametrize(
    ("schedule", "wanted"), [("linear", [0.15, 0.3, 0.45, 0.6]), ("cubic", [0.346, 0.525, 0.59, 0.6])], ids=["linear", "cubic"]
)
def test_each_step_goes_as_far_as_the_schedule_says(cuts, schedule, wanted):
    context = _pruned(f"prune-gradually{{ratio=0.6,steps=4,schedule={schedule},{OPTIONS}}}")
    assert len(cuts) == len(wanted)
    one_channel = 0.06  # at most, of this small model
    assert all(share <= cut < share + one_channel for share, cut in zip(wanted, cuts, strict=True))
    assert 1 - _macs(context) / _macs(Context(read(PROTO))) == pytest.approx(cuts[-1])


def test_it_is_as_good_on_samples_apart_as_the_floor_asks():
    whole = _pruned(f"prune-gradually{{ratio=0.8,steps=6,schedule=linear,{OPTIONS}}}")
    held = _pruned(f"prune-gradually{{ratio=0.8,steps=6,schedule=linear,min_sqnr=28,{OPTIONS}}}")
    assert _macs(whole) < _macs(held) < _macs(Context(read(PROTO)))
    fresh = {"x": np.random.default_rng(1).standard_normal((200, 3, 8, 8)).astype(np.float32)}
    wanted = Evaluator(read(PROTO)).run(fresh)["y"]
    noise = [((Evaluator(made.model).run(fresh)["y"] - wanted) ** 2).sum() for made in (whole, held)]
    assert 10 * np.log10((wanted**2).sum() / noise[1]) > 25 > 10 * np.log10((wanted**2).sum() / noise[0])
    (remark,) = [remark for remark in held.remarks if "breaks the floor" in remark.reason]
    assert "stopped at" in remark.reason


def test_labels_are_the_floor_where_there_are_some():
    whole, held = (
        _pruned(f"prune-gradually{{ratio=0.9,steps=6,recover=none,{floor}{OPTIONS}}}", labelled=True)
        for floor in ("", "max_loss=0.01,")
    )
    assert _macs(whole) < _macs(held)
    assert any("points of accuracy lost" in remark.reason for remark in held.remarks)


def test_an_interrupt_keeps_the_steps_that_are_done(monkeypatch, cuts):
    run, seen = PruningTrials.run, []

    def interrupted(trials, ratio):
        seen.append(ratio)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return run(trials, ratio)

    monkeypatch.setattr(PruningTrials, "run", interrupted)
    context = _pruned(f"prune-gradually{{ratio=0.6,steps=4,schedule=linear,{OPTIONS}}},remove-dead-code")
    assert len(cuts) == 2
    assert 1 - _macs(context) / _macs(Context(read(PROTO))) == pytest.approx(0.33, abs=0.04)
    assert "prune-gradually: interrupted: it ended early, with the best model so far" in [str(one) for one in context.remarks]
    assert context.interrupted.name == "prune-gradually"


def test_an_interrupt_before_the_first_step(monkeypatch):
    def interrupted(trials, ratio):
        raise KeyboardInterrupt

    monkeypatch.setattr(PruningTrials, "run", interrupted)
    context = _pruned(f"prune-gradually{{{OPTIONS}}}")
    assert _macs(context) == _macs(Context(read(PROTO)))
    assert "prune-gradually: interrupted: it ended early, before it had changed anything" in [
        str(one) for one in context.remarks
    ]


def test_a_second_interrupt_goes_up(monkeypatch):
    def interrupted(trials, ratio):
        raise KeyboardInterrupt

    monkeypatch.setattr(PruningTrials, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _pruned("prune-gradually,prune-gradually")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("steps=0", "error[E203]: steps is out of range, pass prune-gradually{steps=0}; it is at least 1"),
        ("validate=1.0", "error[E203]: validate is out of range, pass prune-gradually{validate=1.0}; "
         "it is a share of the samples, between 0 and 1"),
        ("max_loss=0.01", "error[E206]: max_loss needs labels to measure accuracy with, pass prune-gradually{max_loss=0.01}: "
         "memory has none; add an array `labels` [samples] to the data, or give min_sqnr in place of max_loss"),
    ],
)  # fmt: skip
def test_what_cannot_be_done(options, message):
    with pytest.raises(DeburrError) as caught:
        _pruned(f"prune-gradually{{{options}}}")
    assert str(caught.value) == message


def test_steps_with_compensation_are_better_than_none():
    assert PruneGradually().recover == "compensate"
    fresh = {"x": np.random.default_rng(1).standard_normal((200, 3, 8, 8)).astype(np.float32)}
    wanted = Evaluator(read(PROTO)).run(fresh)["y"]
    made = [_pruned(f"prune-gradually{{ratio=0.5,recover={recover},{OPTIONS}}}") for recover in ("compensate", "none")]
    mended, broken = (((Evaluator(one.model).run(fresh)["y"] - wanted) ** 2).sum() for one in made)
    assert mended < 0.5 * broken
