"""One coded line for whatever a user can get wrong, and nothing half-written."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from models import residual_block
from onnx import helper

from deburr.cli import main


def call(line: str) -> int:
    return main(line.split())


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 3, 8, 8)).astype(np.float32)


def test_pipelines_that_do_not_parse(fails) -> None:
    def pipeline(text: str) -> list[str]:
        return fails(2, f"optimize m.onnx -o x.onnx -p {text}").splitlines()

    line, text, caret = pipeline("clean,prune-chanels")
    assert line.startswith(
        "error[E202]: no pass or recipe 'prune-chanels', in the pipeline, at column 7, 'prune-chanels': there are "
    )
    assert line.endswith("; did you mean 'prune-channels'?")
    assert (text, caret) == ("clean,prune-chanels", "      ^")
    assert (
        pipeline("clean,,")[0]
        == "error[E201]: the pipeline does not parse, in the pipeline, at column 7, ',': expected the name of a pass"
    )
    assert pipeline("prune-channels{ratoi=1}")[0].endswith("; did you mean 'ratio'?")
    assert pipeline("@gone.txt")[0].startswith("error[E201]: the pipeline's file cannot be read, gone.txt: ")


def test_a_pipeline_from_a_file(folder: Path) -> None:
    Path("p.txt").write_text("clean  # fewer nodes\n, prune-channels{ratio=0.5,\n  round_to=1}\n")
    assert call("optimize m.onnx -o x.onnx -p @p.txt") == 0
    assert len(onnx.load("x.onnx").graph.node) < len(onnx.load("m.onnx").graph.node)


def broken_models() -> dict[str, tuple[onnx.ModelProto | bytes, str]]:
    """File name -> content, and the end of the error line after the code and the place."""
    whole = residual_block()
    duplicate, cycle, undefined, false, future = (residual_block() for _ in range(5))
    duplicate.graph.node[1].output[0] = duplicate.graph.node[0].output[0]
    cycle.graph.node[0].input[0] = cycle.graph.node[-1].output[0]
    undefined.graph.node[2].input[0] = "nowhere"
    false.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 11
    future.opset_import[0].version = 99
    return {
        "text.onnx": (b"hello\n", r"error\[E102\]: not an ONNX model, or truncated, text\.onnx: .+; .+"),
        "cut.onnx": (whole.SerializeToString()[:-500], r"error\[E102\]: not an ONNX model, or truncated, cut\.onnx: .+; .+"),
        "empty.onnx": (b"", r"error\[E102\]: not an ONNX model, or truncated, empty\.onnx: the file is empty; .+"),
        "duplicate.onnx": (
            duplicate,
            r"error\[E103\]: the value 'Conv_0_out' is defined twice, duplicate\.onnx, node 'Relu_1'; .+",
        ),
        "cycle.onnx": (cycle, r"error\[E103\]: the nodes form a cycle, cycle\.onnx, node 'Conv_0': .+"),
        "undefined.onnx": (undefined, r"error\[E103\]: the input 'nowhere' is not defined, undefined\.onnx, node 'Conv_2': .+"),
        "false.onnx": (
            false,
            r"error\[E103\]: the declared types and shapes are false, false\.onnx, node 'Gemm_11'.+\(10\) vs \(11\)",
        ),
        "future.onnx": (future, r"error\[E105\]: opset 99 is too new, future\.onnx: .+; upgrade onnx, .+"),
    }


@pytest.mark.parametrize("name", broken_models())
@pytest.mark.parametrize("command", ["optimize", "compile", "inspect"])
def test_models_that_are_none(fails, folder: Path, name: str, command: str) -> None:
    content, pattern = broken_models()[name]
    Path(name).write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    line = fails(1, f"{command} {name}" + ("" if command == "inspect" else " -o out"))
    assert re.fullmatch(pattern, line), line


def test_a_model_that_is_not_there(fails) -> None:
    wanted = "error[E101]: cannot read the model, gone.onnx: No such file or directory; check the path"
    assert fails(1, "optimize gone.onnx -o x.onnx") == wanted
    assert fails(1, "inspect gone.onnx") == wanted
    assert fails(1, "bench gone.onnx") == "error[E101]: no such file or directory, gone.onnx; give a bundle or an ONNX file"


def test_an_operator_that_nothing_supports(fails, folder: Path) -> None:
    info = [helper.make_tensor_value_info(name, 1, ["batch", 4]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Frobnicate", ["x"], ["y"], "frob", domain="acme")], "g", info[:1], info[1:])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("acme", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), "op.onnx")
    line = fails(1, "compile op.onnx -o b")
    assert line.startswith(
        "error[E402]: the operator acme.Frobnicate cannot be compiled, acme.Frobnicate 'frob': neither a template"
    )
    assert "Frobnicate" in fails(1, "compare op.onnx op.onnx --data c.npz")
    assert "Frobnicate" in fails(1, "bench op.onnx")
    assert call("optimize op.onnx -o same.onnx") == 0  # what is not known is left alone
    assert [node.op_type for node in onnx.load("same.onnx").graph.node] == ["Frobnicate"]


def bad_data() -> dict[str, tuple[dict[str, np.ndarray] | bytes, str]]:
    nan, infinite = images(4), images(4)
    nan[3, 0, 0, 0], infinite[2] = np.nan, np.inf
    npz = "give an .npz written by numpy.savez"
    return {
        "junk": (b"no", f"E301]: cannot read the data, junk.npz: File is not a zip file; {npz}"),
        "pickled": (
            {"x": np.array([object()])},
            f"E301]: cannot read the data, pickled.npz: Object arrays cannot be loaded when allow_pickle=False; {npz}",
        ),
        "missing": (
            {"z": images(4)},
            "E302]: no data for the input 'x', missing.npz: the file holds z; name an array after each model input",
        ),
        "unknown": (
            {"x": images(4), "z": images(4)},
            "E302]: the model has no input 'z', unknown.npz: its inputs are x; rename or remove the array",
        ),
        "shape": (
            {"x": images(4)[:, :2]},
            "E303]: wrong shape, shape.npz, array 'x': the model takes float[batch, 3, 8, 8], the array is [4, 2, 8, 8]; "
            "put the samples on the first axis",
        ),
        "dtype": (
            {"x": images(4).astype(float)},
            "E303]: wrong dtype, dtype.npz, array 'x': the model takes float, the array is float64; "
            "convert it with .astype('float32')",
        ),
        "nan": (
            {"x": nan},
            "E304]: NaN or infinity in the data, nan.npz, array 'x': in 1 samples, the first is number 3",
        ),
        "infinite": (
            {"x": infinite},
            "E304]: NaN or infinity in the data, infinite.npz, array 'x': in 1 samples, the first is number 2",
        ),
        "nothing": ({"x": images(0)}, "E305]: no samples, nothing.npz, array 'x': the shape is [0, 3, 8, 8]"),
    }


@pytest.mark.parametrize("name", bad_data())
def test_calibration_data_that_does_not_fit(fails, folder: Path, name: str) -> None:
    content, message = bad_data()[name]
    if isinstance(content, bytes):
        Path(f"{name}.npz").write_bytes(content)
    else:
        np.savez(f"{name}.npz", **content)
    assert fails(1, f"optimize m.onnx -o x.onnx -p int8 --data {name}.npz") == f"error[{message}"


def test_data_is_asked_for_and_never_made_up(fails) -> None:
    line = fails(2, "optimize m.onnx -o x.onnx -p int8")
    assert line.startswith("error[E206]: the pass calibrate needs calibration data, pipeline int8: none was given; ")
    gone = "error[E301]: cannot read the data, gone.npz: No such file or directory; give an .npz written by numpy.savez"
    assert fails(1, "optimize m.onnx -o x.onnx -p int8 --data gone.npz") == gone


def test_random_data_is_used_where_asked_for_and_the_report_says_so(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    line = "optimize m.onnx -o x.onnx -p int8 --synthetic-data 8 --report r --json j.json"
    assert call(line) == 0
    warning = "calibrated on random data: the accuracy of this model means nothing until it is measured"
    assert f"warning: {warning}" in capfd.readouterr().err
    report = json.loads(Path("r/report.json").read_text())
    assert (report["synthetic"], report["samples"], report["warning"]) == (True, 8, warning)
    assert report == json.loads(Path("j.json").read_text())
    assert f"**Warning: {warning}.**" in Path("r/report.md").read_text()


def test_an_unknown_target(fails) -> None:
    line = fails(2, "compile m.onnx -o b --target icelak")
    why = "it is neither a preset nor a file of presets"
    assert re.fullmatch(rf"error\[E401\]: no target 'icelak': {why}; did you mean icelake( or .*)?\?", line)
    assert fails(2, "optimize m.onnx -o x.onnx --target icelak") == line


@pytest.mark.parametrize(
    "line",
    [
        "optimize m.onnx -o gone/x",
        "compile m.onnx -o gone/x",
        "run m.onnx --input c.npz -o gone/x",
        "bench m.onnx --json gone/x",
        "compare m.onnx m.onnx --data c.npz --json gone/x",
        "optimize m.onnx -o y.onnx --json gone/x",
    ],
)
def test_a_folder_that_is_not_there(fails, line: str) -> None:
    wanted = "error[E109]: cannot write, gone/x: there is no such folder; choose a folder that can be written to"
    assert fails(1, line) == wanted


def test_a_failed_run_leaves_the_old_file(folder: Path) -> None:
    Path("x.onnx").write_bytes(b"old")
    assert call("optimize m.onnx -o x.onnx -p int8 --data gone.npz") == 1
    assert Path("x.onnx").read_bytes() == b"old"


@pytest.mark.parametrize("line", ["run nothing --input c.npz -o y.npz", "compare m.onnx nothing --data c.npz", "bench nothing"])
def test_a_folder_that_is_no_bundle(fails, line: str) -> None:
    Path("nothing").mkdir()
    message = fails(1, line)
    assert re.fullmatch(r"error\[E501\]: not a bundle, \S*nothing: manifest\.json: No such file or directory; .+", message)
