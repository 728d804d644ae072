"""Profiles of bundles: every group with its time, the machine's ceiling, and what cannot be profiled."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from models import Builder, conv_chain, perceptron

import deburr
from deburr.cli import main
from deburr.profile import Profile, _profile, profile
from deburr.targets.features import missing_here
from deburr.targets.schedules import ceiling, pipeline
from deburr.targets.target import find


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("profile")
    onnx.save(conv_chain(), folder / "chain.onnx")
    deburr.compile(folder / "chain.onnx", folder / "chain.bundle", target="host", threads=1)
    return folder / "chain.bundle"


def test_every_group_is_a_row(bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(bundle), "--profile", "--threads", "1", "--json", str(tmp_path / "p.json")]) == 0
    out, found = capfd.readouterr().out, json.loads((tmp_path / "p.json").read_text())
    (program,) = deburr.open(bundle).manifest["programs"]
    groups = program["groups"]
    rows = [row for row in found["rows"] if row["operator"] not in ("", "TVM's own")]
    assert [(row["layer"], row["shape"]) for row in rows] == [(group["layer"], group["shape"]) for group in groups]
    assert any(row["shape"].startswith("3x3 3-") for row in rows)
    assert sum(row["share"] for row in found["rows"]) == pytest.approx(1)
    assert sum(row["us"] for row in found["rows"]) == pytest.approx(found["total_us"])
    for row, group in zip(rows, groups, strict=True):
        if group["macs"]:
            assert row["gmacs"] == pytest.approx(group["macs"] / row["us"] / 1e3)
            assert 0 < row["of_ceiling"] == pytest.approx(row["gmacs"] * 1e9 / found["ceilings"][group["dtype"]])
    assert "GMAC/s on float32" in out
    assert "1 threads, batch 1, medians of 50 runs, inputs random (seed 0)" in out


@pytest.mark.parametrize("rank", [2, 4])
@pytest.mark.parametrize("channels", [16, 20])
def test_a_layout_that_moves_nothing_is_no_group(channels: int, rank: int, tmp_path: Path) -> None:
    """One pixel, whole blocks of channels: TVM makes a view of the change of layout, and calls no kernel."""
    builder = Builder()
    pooled = builder.node("GlobalAveragePool", [builder.conv("x", 3, channels)])
    shape = ["batch", channels, 1, 1][:rank]
    builder.node("Sin", [builder.node("Flatten", [pooled]) if rank == 2 else pooled], "y")
    onnx.save(builder.model({"x": ["batch", 3, 8, 8]}, {"y": shape}), tmp_path / "pooled.onnx")
    deburr.compile(tmp_path / "pooled.onnx", tmp_path / "pooled.bundle", target="x86-64-v3", threads=1)
    rows = [row.operator for row in profile(tmp_path / "pooled.bundle", threads=1, runs=2).rows]
    assert rows.count("ChangeLayout") == 1 + (channels % 8 > 0)  # the input's, which does move


def test_given_data_is_used(bundle: Path) -> None:
    assert profile(bundle, threads=1, data={"x": np.zeros((5, 3, 8, 8), np.float32)}, runs=2).inputs == "given"
    with pytest.raises(deburr.DeburrError, match=r"^error\[E303\]"):
        profile(bundle, threads=1, data={"x": np.zeros((5, 3, 8, 9), np.float32)}, runs=2)


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_the_picture(bundle: Path, tmp_path: Path, kind: str) -> None:
    pytest.importorskip("matplotlib", reason="the extra `plot` is not installed")
    picture = tmp_path / f"p.{kind}"
    assert main(["bench", str(bundle), "--profile", "--threads", "1", "--picture", str(picture)]) == 0
    assert picture.stat().st_size > 5_000


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["{bundle}"], "error[E901]: a profile is of one bundle alone, --profile; deburr bench BUNDLE --profile"),
        (["--peer", "onnxruntime"], "error[E901]: a profile is of one bundle alone, --profile; deburr bench BUNDLE --profile"),
        (["--picture", "p.gif"], "error[E901]: no such kind of picture, p.gif; end its name in .svg, .png or .pdf"),
    ],
)
def test_a_wrong_call(bundle: Path, extra: list[str], message: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(bundle), "--profile", *(word.format(bundle=bundle) for word in extra)]) == 2
    assert capfd.readouterr().err.startswith(message)


def test_a_model_has_no_profile(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    onnx.save(perceptron(), tmp_path / "p.onnx")
    assert main(["bench", str(tmp_path / "p.onnx"), "--profile"]) == 2
    assert capfd.readouterr().err == (
        f"error[E901]: only a bundle has a profile, {tmp_path / 'p.onnx'}; compile the model first\n"
    )


def test_without_matplotlib(bundle: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["bench", str(bundle), "--profile", "--picture", "p.png"]) == 1
    assert capfd.readouterr().err == (
        "error[E902]: matplotlib is missing, --picture: it draws the picture; pip install 'deburr[plot]'\n"
    )


def found(groups: list[dict[str, object]], calls: dict[str, float], remarks: tuple[str, ...] = ()) -> Profile:
    """The profile of a program that makes these calls, each of so many microseconds."""
    runs = [[(name, us * 1e-6) for name, us in calls.items()]] * 3
    answer = {"runs": runs, "groups": groups, "batch": 1, "threads": 1, "ceilings": {"uint8": 1e9}, "remarks": remarks}
    return _profile("b", "given", answer)


def group(operator: str, macs: int = 0) -> dict[str, object]:
    return {"layer": "a", "operator": operator, "shape": "", "dtype": "uint8", "macs": macs}


def test_what_has_no_template_and_takes_long_is_said() -> None:
    """All calls of an operator count together: twenty small ones are one large one."""
    compiling = ("lower: c: its window is odd: compiled by TVM's own converter", "lower: d: it stays float")
    seen = found(
        [group("Conv2d", 60_000), group("Concat")],
        {"deburr_conv2d_0": 60, "vm.builtin.x": 10, "fused_softmax": 4, "fused_softmax1": 4, "tile": 4, "deburr_concat_1": 18},
        compiling,
    )
    assert seen.remarks == (
        "fused_softmax: 8% of the time in 2 calls, compiled by TVM's own converter: it has no template",
        "Concat: 18% of the time in 1 call, scheduled by the default: it has no template",
        compiling[0],
    )
    assert seen.rows[0].of_ceiling == pytest.approx(1.0)


def test_what_has_a_template_or_takes_little_is_not_said() -> None:
    calls = {"deburr_conv2d_0": 50, "deburr_pool2d_1": 46, "softmax": 4}
    assert found([group("Conv2d", 1000), group("Pool2d")], calls, ("x: compiled by TVM's own converter",)).remarks == ()


def test_a_manifest_that_tells_of_other_calls_is_refused() -> None:
    with pytest.raises(deburr.DeburrError, match="the program does not call what its manifest says"):
        found([], {"deburr_conv2d_0": 1})


def test_a_slow_operator_is_a_line_of_the_command(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    builder = Builder()
    builder.node("CumSum", ["x", builder.constant(np.array(1, np.int64))], "y")
    onnx.save(builder.model({"x": ["batch", 20_000]}, {"y": ["batch", 20_000]}), tmp_path / "sum.onnx")
    deburr.compile(tmp_path / "sum.onnx", tmp_path / "b", target="host", threads=1, batch=(1, 2))
    assert main(["bench", str(tmp_path / "b"), "--profile", "--threads", "1", "--batch", "2"]) == 0
    out = capfd.readouterr().out
    assert re.search(
        r"^remark: \w*cumsum: \d+% of the time in 1 call, compiled by TVM's own converter: it has no template$", out, re.M
    )
    assert "1 threads, batch 2, medians of 50 runs" in out
    assert main(["bench", str(tmp_path / "b"), "--profile", "--batch", "3"]) == 2
    assert capfd.readouterr().err == "error[E901]: a profile is of one program, batch 3: the bundle has one for 1 and for 2\n"


@pytest.mark.parametrize("name", ["x86-64-v2", "x86-64-v3", "x86-64-v4-vnni"])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_the_ceiling_does_its_work(name: str, dtype: str) -> None:
    import tvm

    target = find(name)
    if missing_here(target.instruction_sets()):
        pytest.skip(f"this CPU cannot run {name}")
    function, arguments, macs = ceiling._function(target, dtype, 2, 4)
    call = pipeline.library(function, target)["main"]
    tensors = [tvm.runtime.tensor(np.full([int(size) for size in one.shape], 2, str(one.dtype))) for one in arguments]
    call(*tensors)
    output = tensors[-1].numpy()
    assert (output == 4 * macs / output.size).all()
