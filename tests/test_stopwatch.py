"""Latency as a budget, end to end: candidates are compiled and timed, and the pass chooses among them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from models import conv_chain, perceptron

import deburr
from deburr import stopwatch as module
from deburr.ir.errors import DeburrError
from deburr.ir.onnx_reader import read
from deburr.stopwatch import signature, stopwatch


def test_a_model_is_timed_on_this_machine() -> None:
    found = stopwatch("host")(read(perceptron()))
    assert 0 < found < 1000


@pytest.mark.slow
def test_a_latency_budget_on_this_machine(tmp_path: Path) -> None:
    """A clock on a busy machine promises no figure: what is held is that it was asked, and that what comes out runs."""
    path = tmp_path / "m.onnx"
    onnx.save(perceptron((64, 256, 256, 10)), path)
    remarks: list = []
    small = deburr.optimize(
        path, "prune-channels{budget=latency,ratio=0.3,scope=group}", target="host", seed=0, remarks=remarks
    )  # fmt: skip
    said = next(remark.reason for remark in remarks if "models measured" in remark.reason)
    count = int(said.split()[0])
    assert 2 <= count <= 8
    assert said.count(" ms") == 3
    outputs = deburr.run(small, {"x": np.zeros((2, 64), np.float32)})
    assert outputs["y"].shape == (2, 10)


def test_the_weights_do_not_count_but_the_sizes_do() -> None:
    one, same, other = (read(proto) for proto in (conv_chain((3, 8)), conv_chain((3, 8)), conv_chain((3, 9))))
    assert signature(one) == signature(same) != signature(other)


def test_models_of_the_same_sizes_are_timed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[str] = []
    monkeypatch.setattr(module, "_time", lambda model, target, seed: float(len(timed.append(target) or timed)))
    watch = stopwatch("generic")
    assert [watch(read(conv_chain(widths))) for widths in ((3, 8), (3, 8), (3, 9), (3, 8))] == [1.0, 1.0, 2.0, 1.0]


def test_rounding_follows_the_target(tmp_path: Path) -> None:
    from deburr.targets.target import find, lanes_of

    path = tmp_path / "m.onnx"
    onnx.save(perceptron((16, 64, 10)), path)
    sizes = {}
    for target in ("x86-64-v3", "cascadelake"):
        assert lanes_of(target) == find(target).lanes
        small = deburr.optimize(path, "prune-channels{ratio=0.1}", target=target)
        sizes[target] = next(iter(small.graph.nodes)).output().shape[1]
        assert sizes[target] % find(target).lanes == 0
    assert len(set(sizes.values())) == 2


def test_an_unknown_target_is_refused() -> None:
    with pytest.raises(DeburrError, match=r"error\[E401\]: no target"):
        deburr.optimize(read(perceptron()), "prune-channels{budget=latency}", target="x87")
