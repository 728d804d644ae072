"""`--explain` ranks the layers, costliest first, and says why where there is nothing to rank."""

from __future__ import annotations

import json

import pytest
from models import samples

from deburr.ir.onnx_reader import read
from deburr.ir.samples import check_samples
from deburr.passes.core import Context
from deburr.passes.manager import run
from deburr.passes.pipeline import parse
from deburr.passes.quantize.explain import SHOWN, Explanation

from .quantizing import mobilenet


def explained(pipeline: str) -> Explanation:
    proto = mobilenet()
    model = read(proto)
    watcher = Explanation()
    run(parse(pipeline), Context(model, data=check_samples(samples(proto, 40), model.graph)), [watcher])
    return watcher


def test_the_costliest_layers_come_first():
    found = explained("clean,calibrate,scale-weights,round-weights,insert-qdq")
    assert found.columns == ("layer", "bits", "SQNR dB", "share of the noise")
    decibels = [float(row[2]) for row in found.rows[:SHOWN]]
    assert decibels == sorted(decibels)
    assert len(found.rows) == SHOWN + 1
    assert found.rows[-1][0] == f"{len(found.layers) - SHOWN} others"
    assert abs(sum(float(row[3].rstrip("%")) for row in found.rows) - 100) < 1
    assert found.refusal == ""


def test_nothing_to_explain():
    found = explained("clean")
    assert found.rows == []
    assert found.refusal.startswith("Nothing to explain: the pipeline has no quantize, nor scale-weights")


@pytest.mark.parametrize("composite", ["clean,quantize", "int8", "clean,quantize-with-accuracy-control{min_sqnr=5}"])
def test_composite_passes_and_recipes_are_explained_too(composite):
    steps, whole = explained("clean,calibrate,scale-weights,round-weights,insert-qdq"), explained(composite)
    assert len(whole.layers) == len(steps.layers)
    assert whole.rows[0][0] == steps.rows[0][0]
    if "control" not in composite:  # it keeps samples apart, so that its figures are others
        assert whole.rows == steps.rows


def test_the_dialect_decides_what_is_explained():
    found = explained("clean,quantize{dialect=tensorrt}")
    assert len(found.layers) == 12


def test_all_layers_go_into_json():
    found = explained("clean,quantize{rounding=nearest}")
    document = json.loads(json.dumps(found.to_json()))
    assert [one["layer"] for one in document[:SHOWN]] == [row[0] for row in found.rows[:SHOWN]]
    assert len(document) == len(found.layers)
    assert all(one["bits"] == 8 and one["noise"] > 0 and one["loss"] is None for one in document)
