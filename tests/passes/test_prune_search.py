"""The largest ratio that keeps a floor."""

from __future__ import annotations

import numpy as np
import pytest
from models import conv_chain

from deburr.ir.errors import DeburrError
from deburr.ir.onnx_reader import read
from deburr.ir.samples import Samples
from deburr.passes import manager
from deburr.passes.analysis.cost import cost
from deburr.passes.core import Context
from deburr.passes.pipeline import parse
from deburr.passes.prune.search import PruneSearch
from deburr.passes.trial.quality import measure

PROTO = conv_chain((3, 24, 16))
IMAGES = np.random.default_rng(0).standard_normal((60, 3, 8, 8)).astype(np.float32)


def _context():
    return Context(read(PROTO), data=Samples({"x": IMAGES}))


def _macs(context):
    return cost(context.model.graph, context).total_macs


def test_it_finds_what_trying_every_ratio_finds():
    floor, options = 30.0, "round_to=1,criterion=l2,per_cost=false"
    context = _context()
    manager.run(parse(f"prune-search{{min_sqnr={floor},resolution=0.01,{options}}}"), context)
    found = 1 - _macs(context) / _macs(_context())
    fit = []
    pass_ = PruneSearch(round_to=1, criterion="l2", per_cost=False)
    other = _context()
    other.running = pass_  # samples are split by the seed and the name of the pass
    trials, _ = pass_.trials(other, from_start=True)
    for ratio in np.arange(0.02, 0.9, 0.02):
        trial, _ = trials.run(float(ratio))
        fit.append((trials.cut(trial), measure(trial.model, read(PROTO), trials.held_out).sqnr_db))
    kept = [cut for cut, sqnr in fit if sqnr >= floor]
    assert min(kept) < max(kept) < 0.5
    assert found == pytest.approx(max(kept), abs=0.06)  # one channel of this small model


def test_a_floor_that_nothing_holds_leaves_the_model():
    context = _context()
    manager.run(parse("prune-search{min_sqnr=200.0,round_to=1,resolution=0.3}"), context)
    assert _macs(context) == _macs(_context())
    (remark,) = [str(remark) for remark in context.remarks if "nothing was pruned" in remark.reason]
    assert remark.endswith("and the floor is SQNR of at least 200 dB (give a lower floor or more data)")


def test_where_nothing_can_go_it_says_so():
    context = _context()
    manager.run(parse("prune-search{min_sqnr=5.0,minimum=1000}"), context)
    assert _macs(context) == _macs(_context())
    assert [remark.reason for remark in context.remarks if remark.reason.startswith("nothing can")] == [
        "nothing can be removed"
    ]
    assert not any("is kept by" in remark.reason for remark in context.remarks)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("resolution=0.0", "error[E203]: resolution is out of range, pass prune-search{resolution=0.0}; it is above 0"),
        ("max_loss=none,min_sqnr=none", "error[E203]: there is no floor to search for, pass "
         "prune-search{max_loss=none,min_sqnr=none}; give max_loss or min_sqnr"),
    ],
)  # fmt: skip
def test_what_cannot_be_done(options, message):
    with pytest.raises(DeburrError) as caught:
        manager.run(parse(f"prune-search{{{options}}}"), _context())
    assert str(caught.value) == message
