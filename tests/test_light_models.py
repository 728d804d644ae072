"""The nine graphs of ONNX's light zoo: half of the work goes, and the rest computes the same as the masked original."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import light_models


@pytest.mark.slow
@pytest.mark.parametrize("name", light_models.NAMES)
def test_a_zoo_graph_loses_half_its_work_exactly(name):
    row = light_models.measure(name, 0.5)
    assert row["macs_cut"] >= 0.4
    assert row["relative_error"] <= 1e-5
