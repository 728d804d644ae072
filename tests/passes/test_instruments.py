"""What watches a run: timing, statistics, printing, diff, bisection, and the failure bundle."""

import io
import json
import re
import shlex

import numpy as np
import onnx
import pytest

from deburr.ir.errors import DeburrError
from deburr.ir.samples import Samples
from deburr.passes import manager
from deburr.passes.core import Context
from deburr.passes.failure import FailureBundle, replay_command
from deburr.passes.instruments import BisectLimit, Diff, PrintModel, Statistics, Timing
from deburr.passes.pipeline import Pipeline, parse

from .rewriting import model
from .test_manager import Crash, DropOne

TEXT = "input %x: float[2]\n %a = Identity(%x)\n %b = Relu(%a)\n %y: float[2] = Abs(%b)\n return %y"


def run(pipeline, *instruments):
    given = model(TEXT)
    parsed = parse(pipeline) if isinstance(pipeline, str) else pipeline
    manager.run(parsed, Context(given), instruments)
    return given


def test_timing_is_a_tree_whose_sums_add_up():
    stream = io.StringIO()
    timing = Timing(stream)
    run("remove-identity,repeat<2>(fold-constants,remove-dead-code)", timing)
    lines = stream.getvalue().splitlines()
    assert [re.sub(r"^ *\d+\.\d{3} s", "", line) for line in lines] == [
        "  pipeline",
        "    remove-identity",
        "    repeat 1/2",
        "      fold-constants",
        "      remove-dead-code",
        "    repeat 2/2",
        "      fold-constants",
        "      remove-dead-code",
    ]
    assert float(lines[0].split()[0]) == pytest.approx(sum(seconds for _, seconds in timing.steps), abs=1e-3)
    assert all(seconds > 0 for _, seconds in timing.steps)


def test_statistics():
    stream = io.StringIO()
    statistics = Statistics(stream)
    run("fold-constants,remove-identity", statistics)
    first, second = statistics.steps
    assert (first.edits, first.nodes_before, first.nodes_after) == (0, 3, 3)
    assert second.edits > 0
    assert (second.nodes_before, second.nodes_after, second.remarks) == (3, 2, 0)
    assert stream.getvalue().splitlines()[1].split() == ["0", "3", "3", "0", "1", "fold-constants"]


def test_print_before_and_after():
    stream = io.StringIO()
    run("fold-constants,remove-identity", PrintModel(before=["remove-identity"], after=["*"], stream=stream))
    text = stream.getvalue()
    assert re.findall("^// .*$", text, re.MULTILINE) == [
        "// after 1 fold-constants", "// before 2 remove-identity", "// after 2 remove-identity",
    ]  # fmt: skip
    assert text.count("Identity(") == 2


def test_print_only_what_changed():
    stream = io.StringIO()
    run("fold-constants,remove-identity", PrintModel(after=["*"], only_changed=True, stream=stream))
    assert re.findall("^// .*$", stream.getvalue(), re.MULTILINE) == ["// after 2 remove-identity"]


def test_diff():
    stream = io.StringIO()
    run("fold-constants,remove-identity", Diff(stream=stream))
    changed = [line for line in stream.getvalue().splitlines() if line.startswith(("+", "-"))]
    assert changed == [
        "--- before 2 remove-identity",
        "+++ after 2 remove-identity",
        "-  %a: float[2] = Identity(%x)",
        "-  %b: float[2] = Relu(%a)",
        "+  %b: float[2] = Relu(%x)",
    ]


@pytest.mark.parametrize(("limit", "left"), [(0, 1), (1, 1), (2, 0), (9, 0)])
def test_bisect_limit(limit, left):
    stream = io.StringIO()
    given = run("fold-constants,remove-identity", BisectLimit(limit, stream))
    assert [node.op for node in given.graph.nodes].count("Identity") == left
    assert stream.getvalue().splitlines()[1] == f"bisect: {'running' if limit > 1 else 'leaving out'} step 2 remove-identity"


def test_no_failure_leaves_no_bundle(tmp_path):
    run("clean", FailureBundle(tmp_path / "bundle"))
    assert list(tmp_path.iterdir()) == []


def test_the_failure_bundle_replays(tmp_path):
    """The model in the bundle is the one before the first pass; its pipeline fails on it in the same way."""
    folder = tmp_path / "bundle"
    with pytest.raises(DeburrError) as caught:
        run(Pipeline((DropOne(), Crash(hard=True))), FailureBundle(folder))
    assert sorted(file.name for file in folder.iterdir()) == ["failure.json", "input.onnx", "pipeline.txt", "replay.sh"]
    assert list(tmp_path.iterdir()) == [folder]
    assert [node.op_type for node in onnx.load(folder / "input.onnx").graph.node] == ["Identity", "Relu", "Abs"]
    assert (folder / "pipeline.txt").read_text() == "drop-one,crash{hard=true}\n"
    report = json.loads((folder / "failure.json").read_text())
    assert report["error"] == str(caught.value)
    assert (report["step"], report["pass"]) == (2, "crash{hard=true}")
    assert {"deburr", "onnx", "onnxruntime", "numpy", "python"} <= set(report["versions"])
    assert report["traceback"][-1] == "KeyError: 'no such thing'"
    assert (folder / "replay.sh").read_text() == ("deburr optimize input.onnx -o output.onnx -p @pipeline.txt --seed 0\n")


def test_the_replay_command_names_data_target_and_seed(tmp_path):
    file = tmp_path / "my samples.npz"
    np.savez(file, x=np.zeros((2, 2), np.float32))
    data = Samples({"x": np.zeros((2, 2), np.float32)}, source=str(file))
    command = replay_command(Context(model(TEXT), data=data, target="host", seed=7))
    assert shlex.split(command)[7:] == ["--seed", "7", "--target", "host", "--data", str(file)]
