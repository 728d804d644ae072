"""What each command prints and writes."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from deburr.cli import main


def call(line: str) -> int:
    return main(line.split())


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 3, 8, 8)).astype(np.float32)


def test_optimize_compile_run_compare(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert (
        call("optimize m.onnx -o x.onnx -p clean,prune-channels{ratio=0.5,round_to=1},quantize --data c.npz --json o.json") == 0
    )
    out, error = capfd.readouterr()
    assert re.search(r"^parameters +\d+ +\d+ +\d\.\d\d$", out, re.M)
    assert re.search(r"^\d+ remarks on what was left alone \(--remarks prints them\)$", error, re.M)
    report = json.loads(Path("o.json").read_text())
    assert report["after"]["macs"] < 0.6 * report["before"]["macs"]
    assert report["bytes_after"] == Path("x.onnx").stat().st_size
    assert (report["data"], report["samples"], report["synthetic"]) == ("c.npz", 16, False)

    assert call("compile x.onnx -o b --threads 1 --json -") == 0
    document = json.loads(capfd.readouterr().out)
    assert document["manifest"]["threads"] == 1
    assert document["bytes"] == sum(file.stat().st_size for file in Path("b").iterdir())

    assert call("run b --input c.npz -o y.npz") == 0
    assert "y       [16, 10]  float32" in capfd.readouterr().out
    assert call("run x.onnx --input c.npz -o z.npz") == 0
    with np.load("y.npz") as got, np.load("z.npz") as wanted:
        assert got.files == wanted.files == ["y"]
        np.testing.assert_allclose(got["y"], wanted["y"], atol=0.05 * np.abs(wanted["y"]).max())
        labels = wanted["y"].argmax(1)

    np.savez("e.npz", x=images(16), labels=labels)
    assert call("compare x.onnx b --data e.npz --json k.json") == 0
    figures = json.loads(Path("k.json").read_text())["outputs"][0]
    assert figures["reference_accuracy"] == 1.0
    assert figures["candidate_accuracy"] == figures["top1_agreement"] >= 0.9
    assert figures["sqnr_db"] > 30


def test_explain_goes_into_json_and_compare_takes_a_folder(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert call("optimize m.onnx -o x.onnx -p clean,quantize{rounding=nearest} --data c.npz --explain --json o.json") == 0
    assert "The layers whose rounding costs most, each rounded alone:" in capfd.readouterr().out
    layers = json.loads(Path("o.json").read_text())["layers"]
    assert layers
    assert all(set(one) == {"layer", "bits", "noise", "sqnr_db", "loss"} for one in layers)
    Path("parts").mkdir()
    for name in ("a", "b"):
        np.savez(f"parts/{name}.npz", x=images(8))
    assert call("compare m.onnx x.onnx --data parts --json k.json") == 0
    assert json.loads(Path("k.json").read_text())["samples"] == 16


def test_the_same_seed_gives_the_same_bytes(folder: Path) -> None:
    for name in ("a", "b"):
        assert call(f"optimize m.onnx -o {name}.onnx -p prune-int8 --data c.npz --seed 7") == 0
    assert Path("a.onnx").read_bytes() == Path("b.onnx").read_bytes()


def test_instruments(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    line = "optimize m.onnx -o x.onnx --remarks --timing --statistics --verify-each --diff --print-after remove-dead-code"
    assert call(f"{line} -p clean,prune-channels") == 0
    error = capfd.readouterr().err
    assert re.search(r"^ +\d+\.\d{3} s +prune-channels$", error, re.M)
    assert re.search(r"^ +edits +nodes +after +remarks +step$", error, re.M)
    assert re.search(r"^\+\+\+ after \d+ fold-batch-norm$", error, re.M)
    assert re.search(r"^// after \d+ remove-dead-code$", error, re.M)
    assert re.search(r"^remark: prune-channels: .+ it is an output of the graph", error, re.M)


def test_printing_after_a_pass_that_does_not_exist(fails) -> None:
    assert fails(2, "optimize m.onnx -o x.onnx --print-after fold").startswith(
        "error[E202]: no pass 'fold', --print-before or --print-after: there are "
    )


def test_bisecting(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert call("optimize m.onnx -o x.onnx -p clean --bisect-limit 0") == 0
    assert "bisect: leaving out step 1" in capfd.readouterr().err
    assert len(onnx.load("x.onnx").graph.node) == len(onnx.load("m.onnx").graph.node)


def test_inspect(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert call("inspect m.onnx --groups --cost --text --json i.json") == 0
    out = capfd.readouterr().out
    assert "x: float[batch, 3, 8, 8]" in out
    assert re.search(r"^Conv +\S+ +\d+ +\d+\.\d%$", out, re.M)
    assert "it is an output of the graph" in out
    document = json.loads(Path("i.json").read_text())
    # 8 x 8 positions; 3x3 from 3 to 8 and twice from 8 to 8, and Gemm 8 to 10
    assert sum(row["MACs per sample"] for row in document["cost"]) == 64 * 9 * (3 * 8 + 2 * 8 * 8) + 80
    assert {row["frozen because"] for row in document["channel groups"]} == {"-", "it is an output of the graph"}
    assert document["text"] in out


def test_passes_lists_name_summary_options_and_recipes(capfd: pytest.CaptureFixture[str]) -> None:
    from deburr.passes.registry import passes, recipes

    assert call("passes") == 0
    out = capfd.readouterr().out
    assert (
        "prune-channels\n    Remove whole channels, and every slice of every weight that only they fed.\n    ratio=0.5\n" in out
    )
    assert all(re.search(rf"^{name}( |$)", out, re.M) for name in (*passes(), *recipes()))
    assert call("passes --json -") == 0
    document = json.loads(capfd.readouterr().out)
    assert [one["name"] for one in document["passes"]] == list(passes())
    assert [one for one in document["broken"] if one["origin"] == "built in"] == []


def test_targets_lists_every_name_that_find_takes(capfd: pytest.CaptureFixture[str]) -> None:
    from deburr.targets.target import names

    assert call("targets --json -") == 0
    assert tuple(one["name"] for one in json.loads(capfd.readouterr().out)) == names()


def test_doctor_is_content_here(capfd: pytest.CaptureFixture[str]) -> None:
    assert call("doctor") == 0
    out = capfd.readouterr().out
    assert re.search(r"^ok +apache-tvm +0\.27\.0\.post1$", out, re.M)
    assert re.search(r"^ok +C compiler +/", out, re.M)


def test_doctor_fails_without_a_compiler(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert call("doctor") == 1
    assert re.search(r"^MISSING +C compiler +none: apt-get install gcc$", capfd.readouterr().out, re.M)


def test_doctor_compares_versions_with_the_pins(monkeypatch: pytest.MonkeyPatch) -> None:
    from deburr import doctor

    monkeypatch.setattr(
        doctor, "_version", lambda name: {"apache-tvm": "0.26.0", "numpy": "2.1", "onnx": None}.get(name, "99.0")
    )
    found = {one.what: one for one in doctor.packages()}
    assert found["apache-tvm"].is_failure
    assert found["onnx"].found == "missing: pip install 'onnx>=1.21'"
    assert not found["numpy"].is_failure


@pytest.mark.slow
def test_compile_tunes_and_the_same_call_again_measures_nothing(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Three seconds: a worker starts, some trials are made; the second run finds them in the records."""
    call = "compile m.onnx -o b --tune 3 --records r.jsonl --threads 1"
    assert main(call.split()) == 0
    assert " trials in this run, kernels " in capfd.readouterr().err
    lines, program = Path("r.jsonl").read_bytes().splitlines(), Path("b/model.so").read_bytes()
    assert main(call.split()) == 0
    assert "tuned: 0 trials in this run" in capfd.readouterr().err
    assert Path("r.jsonl").read_bytes().splitlines() == lines
    assert len(lines) >= 2
    assert Path("b/model.so").read_bytes() == program


@pytest.mark.parametrize("dialect", ["tensorrt", "openvino", "qnn"])
def test_a_dialect_end_to_end(folder: Path, dialect: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert call(f"optimize m.onnx -o x.onnx -p clean,quantize{{dialect={dialect}}} --data c.npz") == 0
    assert {node.op_type for node in onnx.load("x.onnx").graph.node} >= {"QuantizeLinear", "DequantizeLinear"}
    assert call("compare m.onnx x.onnx --data c.npz --json k.json") == 0
    assert json.loads(Path("k.json").read_text())["outputs"][0]["sqnr_db"] > 25
