"""`inspect --sparsity` and `inspect --groups --picture`."""

from __future__ import annotations

import json
import sys
import zlib
from pathlib import Path

import onnx
import pytest
from models import conv_chain

from deburr.cli import main


def call(line: str) -> int:
    return main(line.split())


@pytest.mark.parametrize("store", ["", ",store-weights"])
@pytest.mark.parametrize(
    ("step", "structure"),
    [("pattern=(2,4)", "2:4"), ("sparsity=0.5,block=(4,1)", "block 4x1"), ("sparsity=0.6", "unstructured")],
)
def test_sparsity_says_what_each_form_takes(folder: Path, step: str, structure: str, store: str) -> None:
    onnx.save(conv_chain((3, 16, 32)), "wide.onnx")
    assert call(f"optimize wide.onnx -o s.onnx -p clean,prune-weights{{{step}}}{store}") == 0
    assert call("optimize wide.onnx -o dense.onnx -p clean,prune-weights{" + step + "}") == 0
    assert call("inspect s.onnx --sparsity --json i.json") == 0
    rows = {row["weight"]: row for row in json.loads(Path("i.json").read_text())["sparsity"]}
    weights = [onnx.numpy_helper.to_array(one) for one in onnx.load("dense.onnx").graph.initializer if len(one.dims) > 1]
    largest = max(weights, key=lambda array: array.size)
    (row,) = [row for row in rows.values() if row["elements"] == largest.size]
    kept = int((largest != 0).sum())
    assert (row["structure"], row["zeros"]) == (structure, largest.size - kept)
    assert row["deflate bytes"] == len(zlib.compress(largest.tobytes()))
    assert row["bitmask bytes"] == largest.size // 8 + 4 * (kept + 1)
    assert 12 * kept < row["sparse_initializer bytes"] < 12 * kept + 64
    for what in ("zeros", "deflate bytes", "bitmask bytes"):
        assert rows["total"][what] == sum(row[what] for name, row in rows.items() if name != "total")


def test_a_picture_holds_every_group_and_why_layers_keep_their_channels(folder: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra `plot` is not installed")
    assert call("inspect m.onnx --groups --picture g.svg --json i.json") == 0
    drawn = Path("g.svg").read_text()
    groups = json.loads(Path("i.json").read_text())["channel groups"]
    assert len(groups) >= 2
    assert all(f"{row['group']}: {row['channels']} channels, {row['MACs per sample']} MACs" in drawn for row in groups)
    assert "keeps them: it is an output of the graph" in drawn
    assert call("inspect m.onnx --groups --picture again.svg") == 0
    assert Path("again.svg").read_text() == drawn


def test_without_matplotlib(fails, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert fails(1, "inspect m.onnx --groups --picture g.png") == (
        "error[E902]: matplotlib is missing, --picture: it draws the picture; pip install 'deburr[plot]'"
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--picture g.svg", "error[E901]: a picture of what, --picture; give --groups with it"),
        ("--groups --picture g.gif", "error[E901]: no such kind of picture, g.gif; end its name in .svg, .png or .pdf"),
    ],
)
def test_pictures_that_cannot_be(fails, line: str, said: str) -> None:
    assert fails(2, f"inspect m.onnx {line}") == said


def test_a_model_without_weights_has_no_rows(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from models import branch_on_sum

    onnx.save(branch_on_sum(), "b.onnx")
    assert call("inspect b.onnx --sparsity") == 0
    assert capfd.readouterr().out.endswith("sparsity\nnone\n")


def test_a_report_says_what_each_form_takes_where_a_pass_changed_that(folder: Path) -> None:
    assert call("optimize m.onnx -o s.onnx -p prune-weights{sparsity=0.8} --report sparse") == 0
    rows = json.loads(Path("sparse/report.json").read_text())["weights"]
    assert rows[-1]["weight"] == "total"
    assert rows[-1]["bitmask bytes"] < rows[-1]["dense bytes"] / 2
    assert "What each way to store the weights takes:" in Path("sparse/report.md").read_text()
    assert call("optimize m.onnx -o d.onnx --report dense") == 0
    assert "weights" not in json.loads(Path("dense/report.json").read_text())
    assert "What each way" not in Path("dense/report.md").read_text()
