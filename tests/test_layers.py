"""One-way streets: ir <- passes <- targets <- src/deburr; and nothing heavy is imported before it is used."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = ("deburr.ir", "deburr.passes", "deburr.targets", "deburr")
FOLDERS = {"deburr.ir": "ir", "deburr.passes": "passes", "deburr.targets": "targets", "deburr": "src/deburr"}
# Rooms that compute in a heavy package from top to bottom: whoever needs one of their files imports it inside a function.
ROOMS = ("schedules", "kernels", "operators", "learning")
HEAVY = ("tvm", "onnx", "onnxruntime", "onnx_graphsurgeon", "networkx", "torch", "openvino", "matplotlib", "scipy")


def sources(floor: str) -> list[Path]:
    folder = ROOT / FOLDERS[floor]
    return [path for path in sorted(folder.rglob("*.py")) if not any(part.is_symlink() for part in path.parents)]


def imports(path: Path, *, module_level: bool = False) -> Iterator[tuple[int, str]]:
    """Line and full name of every import; those for type checkers alone do not count."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    checking = {
        child for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in ast.walk(node)
    }  # fmt: skip
    inside = {
        child for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.walk(node)
    }  # fmt: skip
    for node in ast.walk(tree):
        if node in checking or (module_level and node in inside):
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def floor_of(name: str) -> int:
    """The floor that an imported name belongs to; -1 where it is another project's."""
    return next((number for number, floor in enumerate(FLOORS) if name == floor or name.startswith(floor + ".")), -1)


@pytest.mark.parametrize("floor", FLOORS)
def test_a_lower_floor_never_imports_a_higher_one(floor: str) -> None:
    assert sources(floor)
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in sources(floor)
        for line, name in imports(path)
        if floor_of(name) > FLOORS.index(floor)
    ]
    assert wrong == []


@pytest.mark.parametrize("floor", FLOORS)
def test_heavy_packages_are_imported_inside_functions(floor: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in sources(floor)
        for line, name in imports(path, module_level=True)
        if name.split(".")[0] in HEAVY and path.parent.name not in ROOMS and not path.name.startswith("emit")
    ]
    assert wrong == []


@pytest.mark.parametrize("module", ["deburr", "deburr.cli"])
def test_importing_the_front_door_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert set(loaded) & {*HEAVY, "numpy", "rich"} == set()


def test_the_front_door_offers_what_it_lists() -> None:
    import deburr

    assert all(getattr(deburr, name) is not None for name in deburr.__all__)
    assert set(deburr.__all__) <= set(dir(deburr))
    with pytest.raises(AttributeError, match="module 'deburr' has no attribute 'tune'"):
        deburr.tune  # noqa: B018
