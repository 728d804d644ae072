"""Measuring: fair turns, honest answers about inputs, and failures of a candidate that name it."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
from models import conv_chain, perceptron

import deburr
from deburr.cli import main
from deburr.measure import Candidate, WorkerProcess, bench, candidates
from deburr.measure_worker import OpenVino


@pytest.fixture
def model(tmp_path: Path) -> Path:
    onnx.save(perceptron(), tmp_path / "p.onnx")
    return tmp_path / "p.onnx"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    onnx.save(perceptron(), folder / "p.onnx")
    deburr.compile(folder / "p.onnx", folder / "p.bundle", target="host", threads=1)
    return folder / "p.bundle"


def test_a_model_in_onnxruntime_and_a_bundle(
    model: Path, bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    line = ["bench", str(model), str(bundle), "--threads", "1", "--rounds", "3", "--json", str(tmp_path / "b.json")]
    assert main(line) == 0
    out = capfd.readouterr().out
    assert "1 threads, batch 1, 3 turns each, inputs random (seed 0)" in out
    measured = json.loads((tmp_path / "b.json").read_text())
    assert [(row["name"], row["engine"]) for row in measured["rows"]] == [("p.onnx", "onnxruntime"), ("p.bundle", "deburr")]
    first, second = measured["rows"]
    assert first["ratio"] == 1.0
    assert second["ratio"] == pytest.approx(second["p50_ms"] / first["p50_ms"])
    assert all(row["p90_ms"] >= row["p50_ms"] > 0 for row in measured["rows"])


def test_turns_are_interleaved(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    ask = WorkerProcess.ask

    def noting(self: WorkerProcess, command: str, **arguments: object) -> dict[str, object]:
        asked.append(self.candidate.name)
        return ask(self, command, **arguments)

    monkeypatch.setattr(WorkerProcess, "ask", noting)
    entries = [Candidate(name, "onnxruntime", model) for name in "ABC"]
    bench(entries, threads=1, rounds=4, round_ms=1)
    assert "".join(asked[-12:]) == "ABCABCABCABC"


def test_given_data_is_used_and_said(model: Path) -> None:
    data = {"x": np.zeros((8, 16), np.float32)}
    measured = bench(candidates([model]), threads=1, data=data, batch=4, rounds=1, round_ms=1)
    assert (measured.inputs, measured.batch) == ("given", 4)


def test_data_that_does_not_fit_is_refused(model: Path) -> None:
    with pytest.raises(deburr.DeburrError, match=r"^error\[E303\]: shape or dtype does not fit, inputs, array 'x': "):
        bench(candidates([model]), threads=1, data={"x": np.zeros((8, 5), np.float32)}, rounds=1)


def test_a_batch_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    onnx.save(conv_chain(batch=4), tmp_path / "four.onnx")
    with pytest.raises(deburr.DeburrError) as caught:
        bench(candidates([tmp_path / "four.onnx"]), threads=1, rounds=1)
    assert str(caught.value) == (
        "error[E303]: the batch does not fit, batch 1: the program takes 4 samples at a time; use --batch 4"
    )


def test_peers_need_a_model(bundle: Path) -> None:
    with pytest.raises(deburr.DeburrError, match=r"^error\[E901\]: nothing for the peers to run, --peer onnxruntime: .+; .+$"):
        candidates([bundle], ["onnxruntime"])


def test_each_peer_gets_each_model(model: Path, bundle: Path) -> None:
    found = candidates([model, bundle], ["onnxruntime", "openvino"])
    assert [one.engine for one in found] == ["onnxruntime", "openvino", "deburr"]


def test_openvino_runs_or_says_what_to_install(model: Path) -> None:
    try:
        import openvino  # noqa: F401
    except ImportError:
        with pytest.raises(deburr.DeburrError) as caught:
            bench(candidates([model], ["openvino"]), threads=1, rounds=1)
        assert str(caught.value) == ("error[E902]: openvino is not installed, --peer openvino; pip install 'deburr[openvino]'")
    else:
        assert bench(candidates([model], ["openvino"]), threads=1, rounds=1, round_ms=1).rows[0].p50_ms > 0


def test_openvino_computes_float32_in_float32(model: Path) -> None:
    """By itself it takes bfloat16 where the CPU has it."""
    openvino = pytest.importorskip("openvino", reason="the extra `openvino` is not installed")
    hint = OpenVino(model, 1)._compiled.get_property("INFERENCE_PRECISION_HINT")
    assert hint == openvino.Type.f32


def test_a_candidate_of_its_own_threads_and_batch(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, object]] = []
    ask = WorkerProcess.ask

    def noting(self: WorkerProcess, command: str, **arguments: object) -> dict[str, object]:
        if command == "prepare":
            with np.load(str(arguments["inputs"])) as feed:
                asked.append((self.threads, feed["x"].shape))
        return ask(self, command, **arguments)

    monkeypatch.setattr(WorkerProcess, "ask", noting)
    entries = [Candidate("a", "deburr", bundle), Candidate("b", "deburr", bundle, threads=2, batch=3)]
    bench(entries, threads=1, rounds=1, round_ms=1, data={"x": np.zeros((8, 16), np.float32)})
    assert asked == [(1, (1, 16)), (2, (3, 16))]


def test_a_candidate_that_dies_is_named(model: Path) -> None:
    with WorkerProcess(Candidate("p", "onnxruntime", model), 1) as worker:
        worker.ask("prepare", inputs=None, batch=1, seed=0, warmup=0)
        threading.Timer(0.5, os.kill, (worker._process.pid, signal.SIGKILL)).start()
        with pytest.raises(deburr.DeburrError) as caught:
            worker.ask("run", calls=100_000_000)
    assert str(caught.value) == f"error[E504]: the process that was timed died, {model}: exit status -9"


def test_a_candidate_that_does_not_open_leaves_no_process(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"no model")
    with pytest.raises(deburr.DeburrError, match=r"error\[E108\]"):
        bench(candidates([tmp_path / "m.onnx"]), threads=1, rounds=1)
    assert not [child for child in psutil.Process().children() if "deburr.measure_worker" in child.cmdline()]


def test_workers_use_the_threads_that_were_asked_for(bundle: Path) -> None:
    with WorkerProcess(Candidate("b", "deburr", bundle), 2) as worker:
        worker.ask("prepare", inputs=None, batch=1, seed=0, warmup=5)
        assert worker.ask("run", calls=3)["ms"]
        status = Path(f"/proc/{worker._process.pid}/environ").read_bytes().split(b"\0")
    assert b"TVM_NUM_THREADS=2" in status
