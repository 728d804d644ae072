"""A third-party pass, installed by pip as its users would, shows in `deburr passes` and runs in a pipeline."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from models import Builder, samples

from deburr.ir.evaluate import Evaluator
from deburr.ir.onnx_reader import read

HERE = Path(__file__).parent / "fuse_hard_swish"


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> dict[str, str]:
    """The variables of a process that sees the installed plugin: pip builds a wheel and unpacks it into a folder of its own."""
    room = tmp_path_factory.mktemp("plugin")
    shutil.copytree(HERE, room / "source", ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
    subprocess.run(
        [*pip, "--no-build-isolation", "--no-index", "--target", room / "installed", room / "source"], check=True, timeout=120
    )
    paths = [str(room / "installed"), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def deburr(environment: dict[str, str], folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "import sys; from deburr.cli import main; sys.exit(main())", *arguments]
    return subprocess.run(command, check=False, env=environment, cwd=folder, capture_output=True, text=True, timeout=120)


def hard_swish() -> onnx.ModelProto:
    """Conv, then x * HardSigmoid(x), twice, the second with the operands exchanged."""
    builder = Builder()
    x = builder.conv("x", 3, 4)
    x = builder.node("Mul", [x, builder.node("HardSigmoid", [x], alpha=1 / 6, beta=0.5)])
    builder.node("Mul", [builder.node("HardSigmoid", [x], alpha=1 / 6, beta=0.5), x], "y")
    return builder.model({"x": ["batch", 3, 6, 6]}, {"y": ["batch", 4, 6, 6]}, opset=13)


def test_it_is_about_25_lines():
    lines = (HERE / "fuse_hard_swish.py").read_text().split("@dataclass")[1].strip().splitlines()
    assert len(lines) <= 26


def test_it_shows_in_deburr_passes(environment, tmp_path):
    listed = json.loads(deburr(environment, tmp_path, "passes", "--json", "-").stdout)
    [entry] = [one for one in listed["passes"] if one["name"] == "fuse-hard-swish"]
    assert entry["origin"] == "deburr-fuse-hard-swish 0.1.0"
    assert entry["summary"] == "Write x * HardSigmoid(x), with slope 1/6 and shift 1/2, as HardSwish."
    assert listed["recipes"]["mobile"] == "clean,fuse-hard-swish"
    assert listed["broken"] == []


@pytest.mark.parametrize("pipeline", ["fuse-hard-swish{tolerance_of_slope=1e-05},remove-dead-code", "mobile,remove-dead-code"])
def test_it_runs_in_a_pipeline(environment, tmp_path, pipeline):
    proto = hard_swish()
    onnx.save(proto, tmp_path / "in.onnx")
    done = deburr(environment, tmp_path, "optimize", "in.onnx", "-o", "out.onnx", "-p", pipeline)
    assert done.returncode == 0, done.stderr
    changed = onnx.load(tmp_path / "out.onnx")
    assert [node.op_type for node in changed.graph.node] == ["Conv", "HardSwish", "HardSwish"]
    assert [entry.version for entry in changed.opset_import] == [14]
    data = samples(proto)
    expected, found = Evaluator(read(proto)).run(data)["y"], Evaluator(read(changed)).run(data)["y"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_broken_plugin_is_named_and_stops_nothing(environment, tmp_path):
    folder = tmp_path / "broken"
    info = folder / "broken-2.0.dist-info"
    info.mkdir(parents=True)
    (folder / "broken_plugin.py").write_text("import a_library_that_is_not_there\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 2.0\n")
    (info / "entry_points.txt").write_text("[deburr.passes]\nbroken-pass = broken_plugin:Pass\n")
    both = {**environment, "PYTHONPATH": f"{folder}{os.pathsep}{environment['PYTHONPATH']}"}
    done = deburr(both, tmp_path, "passes")
    assert done.returncode == 0, done.stderr
    reason = "ModuleNotFoundError: No module named 'a_library_that_is_not_there'"
    assert f"broken: broken-pass from broken 2.0: {reason}" in done.stdout
    onnx.save(hard_swish(), tmp_path / "in.onnx")
    assert deburr(both, tmp_path, "optimize", "in.onnx", "-o", "out.onnx", "-p", "clean").returncode == 0
    refused = deburr(both, tmp_path, "optimize", "in.onnx", "-o", "never.onnx", "-p", "clean,broken-pass")
    assert refused.returncode == 2
    assert refused.stderr.startswith("error[E202]: the pass 'broken-pass' cannot be loaded")
    assert "Traceback" not in refused.stderr
    assert not (tmp_path / "never.onnx").exists()
