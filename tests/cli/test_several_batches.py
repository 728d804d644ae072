"""A bundle for several batch sizes in every command that takes one."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from deburr.cli import main


def call(line: str) -> int:
    return main(line.split())


def test_compile_run_compare_bench_inspect(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert call("optimize m.onnx -o x.onnx -p int8 --data c.npz") == 0
    assert call("compile x.onnx -o one --threads 1") == 0
    capfd.readouterr()
    assert call("compile x.onnx -o many --threads 1 --batch 4,1,3 --json -") == 0
    manifest = json.loads(capfd.readouterr().out)["manifest"]
    assert [program["batch"] for program in manifest["programs"]] == [1, 3, 4]

    for name in ("one", "many"):
        assert call(f"run {name} --input c.npz -o {name}.npz") == 0
    with np.load("one.npz") as one, np.load("many.npz") as many:
        assert one["y"].shape == (16, 10)
        np.testing.assert_array_equal(one["y"], many["y"])
    capfd.readouterr()

    assert call("compare one many --data c.npz") == 0
    assert re.search(r"^y +inf +0 +100.00%", capfd.readouterr().out, re.M)

    assert call("bench many one --batch 4 --threads 1 --rounds 2") == 0
    assert "1 threads, batch 4, 2 turns each" in capfd.readouterr().out

    assert call("inspect many --json i.json") == 0
    out = capfd.readouterr().out
    assert re.search(r"^samples +any number, in parts$", out, re.M)
    assert re.search(r"^main_3 +3 +\d+ +\d+$", out, re.M)
    assert [row["samples"] for row in json.loads(Path("i.json").read_text())["programs"]] == [1, 3, 4]


def test_what_only_a_model_has_is_not_shown_of_a_bundle(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert call("compile m.onnx -o b") == 0
    capfd.readouterr()
    assert call("inspect b --groups") == 2
    assert capfd.readouterr().err == (
        "error[E901]: a bundle holds no ONNX model, b: its channels, weights and nodes are compiled away; "
        "inspect the ONNX file, or leave the option out\n"
    )


def test_a_wrong_list_of_sizes(fails) -> None:
    assert fails(2, "compile m.onnx -o b --batch 1,four") == (
        "error[E901]: not a batch size, --batch 1,four: 'four' is no whole number above 0; "
        "give different sizes, as --batch 1,4,8 or batch=(1, 4, 8)"
    )
