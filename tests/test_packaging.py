"""What is shipped: the list of packages is the disk's, the wheel holds every module, and works alone in a new environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import onnx
import pytest
from models import residual_block

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
FOLDERS = {"deburr": ROOT / "src" / "deburr", **{f"deburr.{room}": ROOT / room for room in ("ir", "passes", "targets")}}
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
# What the wheel's environment runs of the test-suite: every floor, and everything that reads files of its own package.
REPRESENTATIVE = ["test_api.py", "test_bench.py", "cli", "ir/test_text.py", "targets/test_target.py", "test_every_pass.py"]


def packages_on_disk() -> dict[str, Path]:
    """Import name -> folder, for every folder with an __init__.py."""
    found = {}
    for name, folder in FOLDERS.items():
        for path in [folder, *sorted(folder.rglob("*"))]:
            inside = path.relative_to(folder)
            reached_by_link = any(part.is_symlink() for part in [path, *path.parents] if folder in part.parents)
            if (path / "__init__.py").exists() and not reached_by_link:
                found[".".join([name, *inside.parts])] = path
    return found


def test_the_list_of_packages_is_the_disk() -> None:
    assert sorted(PYPROJECT["tool"]["setuptools"]["packages"]) == sorted(packages_on_disk())


def test_every_module_belongs_to_a_package() -> None:
    known = set(packages_on_disk().values())
    stray = [
        path for folder in FOLDERS.values() for path in folder.rglob("*.py")
        if path.parent not in known and not any(parent.is_symlink() for parent in path.parents)
    ]  # fmt: skip
    assert stray == []


def test_the_links_that_type_checkers_follow() -> None:
    for room in ("ir", "passes", "targets"):
        assert os.readlink(ROOT / "src" / "deburr" / room) == f"../../{room}"


def test_tvm_is_pinned_and_torch_is_no_dependency() -> None:
    needed = PYPROJECT["project"]["dependencies"]
    assert {"apache-tvm==0.27.0.post1", "apache-tvm-ffi==0.1.14.post1"} <= set(needed)
    assert not any(one.startswith("torch") for one in needed)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a source archive built from a copy: the tree may hold a build/ that would leak into it."""
    room = tmp_path_factory.mktemp("wheel")
    unwanted = shutil.ignore_patterns(".git", ".venv", "build", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis")
    shutil.copytree(ROOT, room / "source", symlinks=True, ignore=unwanted)
    subprocess.run([sys.executable, "-m", "build", "--outdir", room / "dist", room / "source"], check=True, capture_output=True)
    (built,) = (room / "dist").glob("*.whl")
    return built


def test_the_wheel_holds_every_module_and_nothing_else(wheel: Path) -> None:
    expected = {"deburr/py.typed", "deburr/targets/presets.toml"}
    for name, folder in packages_on_disk().items():
        files = [path for kind in ("*.py", "*.hpp", "*.cpp", "*.c") for path in folder.glob(kind)]
        expected |= {f"{name.replace('.', '/')}/{path.name}" for path in files}
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        metadata = {name.split("/")[1] for name in archive.namelist() if ".dist-info/" in name and "licenses" not in name}
        licenses = [name for name in archive.namelist() if name.endswith("licenses/LICENSE")]
    assert held == expected
    assert {"METADATA", "entry_points.txt"} <= metadata
    assert len(licenses) == 1


@pytest.fixture(scope="session")
def alone(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of a new environment that holds the wheel, what it needs, and pytest."""
    folder = tmp_path_factory.mktemp("alone") / "venv"
    venv.create(folder, with_pip=True)
    programs = folder / "bin"
    testing = [one for one in PYPROJECT["dependency-groups"]["dev"] if one.startswith(("pytest>", "hypothesis"))]
    subprocess.run([programs / "python", "-m", "pip", "install", "--quiet", wheel, *testing], check=True, capture_output=True)
    return programs


def run(program: Path, *arguments: str, folder: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PYTEST"))}
    done = subprocess.run([program, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


# The rooms that import an extra at their door: who goes in asks for it before.
NEED_TORCH = ("deburr.passes.recover.learning", "deburr.passes.recover.operators")


def test_every_module_imports_from_the_wheel(alone: Path, tmp_path: Path) -> None:
    modules = [
        name if path.stem == "__init__" else f"{name}.{path.stem}"
        for name, folder in packages_on_disk().items()
        for path in folder.glob("*.py")
        if name not in NEED_TORCH
    ]
    code = f"import importlib, deburr; [importlib.import_module(name) for name in {modules!r}]; print(deburr.__file__)"
    assert "site-packages" in run(alone / "python", "-c", code, folder=tmp_path)
    assert packages_on_disk().keys() >= set(NEED_TORCH)


def test_the_wheel_optimizes_compiles_and_runs(alone: Path, tmp_path: Path) -> None:
    onnx.save(residual_block(), tmp_path / "m.onnx")
    for line in (
        "--help",
        "optimize m.onnx -o x.onnx -p int8 --synthetic-data 8",
        "compile x.onnx -o b",
        "bench b x.onnx --rounds 1",
    ):
        run(alone / "deburr", *line.split(), folder=tmp_path)


def test_the_tests_pass_against_the_wheel(alone: Path, tmp_path: Path) -> None:
    """From a folder where the sources are out of reach: only tests/ is copied."""
    shutil.copytree(ROOT / "tests", tmp_path / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    present = [f"tests/{name}" for name in REPRESENTATIVE]
    out = run(alone / "python", "-m", "pytest", "-q", "-m", "not slow", *present, folder=tmp_path)
    assert " passed" in out.splitlines()[-1]


@pytest.mark.slow
def test_the_wheel_runs_the_demo(alone: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    out = run(alone / "python", "examples/demo.py", "--out", "out", "--samples", "500", "--rounds", "5", folder=tmp_path)
    assert "pruned + int8 against original: file 1" in out
