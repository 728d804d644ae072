"""The README holds only what runs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from deburr.passes import registry

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def snippets(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_python_runs(tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (snippet,) = snippets("python")
    done = subprocess.run([sys.executable, "-c", snippet], cwd=tmp_path, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split("%")[0]) >= 85


def commands() -> list[str]:
    return [
        line.split("#")[0].strip() for snippet in snippets("sh") for line in snippet.splitlines() if line.startswith("deburr")
    ]


def test_shell_commands_run(tmp_path: Path) -> None:
    folder = ROOT / "examples" / "fashion_mnist"
    for name in ("model.onnx", "calibration.npz"):
        (tmp_path / name).symlink_to(folder / name)
    with np.load(folder / "evaluation.npz") as evaluation:  # a part of it, for speed
        np.savez(tmp_path / "evaluation.npz", **{name: array[:200] for name, array in evaluation.items()})
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for command in commands():
        # int8 in place of prune-int8: the same way, in seconds.
        words = command.replace("prune-int8", "int8").split()
        done = subprocess.run(words, cwd=tmp_path, check=False, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, f"{command}: {done.stderr}"


def test_make_targets_exist() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    code = [*re.findall(r"`([^`\n]+)`", README), *snippets("sh")]  # "make" is also a word
    named = re.findall(r"^make ([a-z-]+)", "\n".join(code), re.MULTILINE)
    assert named
    assert set(named) <= set(targets)


def test_pass_list_is_the_registry() -> None:
    listed = re.findall(r"^\| `([a-z0-9-]+)` \|", README, re.MULTILINE)
    built_in = {name for name, found in registry.passes().items() if found.__module__.startswith("deburr.")}
    assert set(listed) == built_in
    for recipe in registry.recipes():
        assert f"`{recipe}`" in README


@pytest.mark.parametrize("path", re.findall(r"`((?:examples|tests|benchmarks|targets)/[\w./]+)`", README))
def test_named_files_exist(path: str) -> None:
    assert (ROOT / path).exists()
