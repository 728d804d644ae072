"""The registry: built-ins, plugins through entry points, and plugins that are broken."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from deburr.ir.errors import DeburrError
from deburr.passes import registry
from deburr.passes.pipeline import parse

HEADER = """from dataclasses import dataclass
from typing import ClassVar
from deburr.passes.core import Pass
"""
GOOD = """
@dataclass(frozen=True)
class Good(Pass):
    \"\"\"A pass that does nothing.\"\"\"
    name: ClassVar[str] = "{name}"
    def run(self, graph, context): ...
"""


@pytest.fixture
def install(tmp_path, monkeypatch) -> Iterator:
    """Puts a package with one module and one entry point per group on the path."""

    def add(package: str, source: str, **points: str) -> None:
        folder = tmp_path / package
        (folder / f"{package}-1.0.dist-info").mkdir(parents=True)
        (folder / f"{package}_module.py").write_text(source)
        info = folder / f"{package}-1.0.dist-info"
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = [f"[deburr.{group}]\n{line}" for group, line in points.items()]
        (info / "entry_points.txt").write_text("\n".join(lines))
        monkeypatch.syspath_prepend(str(folder))
        registry.reload()

    yield add
    monkeypatch.undo()
    for name in [name for name, module in sys.modules.items() if str(tmp_path) in str(getattr(module, "__file__", ""))]:
        del sys.modules[name]
    registry.reload()


def reasons() -> list[tuple[str, str, str]]:
    return [(entry.name, entry.origin, entry.reason) for entry in registry.broken()]


def test_everything_that_is_built_in_loads():
    assert registry.broken() == []
    assert set(registry.passes()) == set(registry.PASSES)
    assert set(registry.recipes()) == set(registry.RECIPES)
    assert set(registry.criteria()) == set(registry.CRITERIA)
    assert set(registry.observers()) == set(registry.OBSERVERS)


def test_every_recipe_parses():
    for name, text in registry.recipes().items():
        assert str(parse(name)) == name
        assert parse(text).expanded() == parse(name).expanded()


def test_names_are_known_without_importing_what_they_name():
    code = (
        "import sys; from deburr.passes import registry; names = registry.passes().names; "
        "heavy = {'numpy', 'onnx', 'onnxruntime', 'tvm', 'networkx'} & set(sys.modules); print(len(names) > 5, sorted(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True []"


def test_a_plugin_is_found(install):
    install("goodplugin", HEADER + GOOD.format(name="do-nothing"), passes="do-nothing = goodplugin_module:Good")
    assert registry.passes()["do-nothing"].__name__ == "Good"
    assert registry.passes().origin("do-nothing") == "goodplugin 1.0"
    assert str(parse("do-nothing,clean")) == "do-nothing,clean"
    assert reasons() == []


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("raise RuntimeError('no licence')", "RuntimeError: no licence"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("import there_is_no_such_module", "ModuleNotFoundError: No module named 'there_is_no_such_module'"),
        ("Good = 3", "it is not a subclass of deburr.passes.core.Pass"),
        (HEADER + GOOD.format(name="other-name"), "the class calls itself 'other-name'"),
        (HEADER + GOOD.format(name="bad").replace("@dataclass(frozen=True)\n", ""), "the class lacks @dataclass(frozen=True)"),
        (
            HEADER + GOOD.format(name="bad").replace("    def run", "    size: int\n    def run"),
            "options without a default: size",
        ),
        (
            HEADER + GOOD.format(name="bad").replace("    def run", "    table: dict = None\n    def run"),
            "TypeError: option table: a dict has no text form",
        ),
    ],
)
def test_a_broken_plugin_is_listed_and_stops_nothing(install, source, reason):
    install("badplugin", source, passes="bad = badplugin_module:Good")
    assert reasons() == [("bad", "badplugin 1.0", reason)]
    assert "bad" not in registry.passes()
    assert list(parse("clean").passes)
    with pytest.raises(DeburrError) as caught:
        parse("clean,bad")
    assert str(caught.value) == (
        f"error[E202]: the pass 'bad' cannot be loaded, in the pipeline, at column 7, 'bad': {reason} (badplugin 1.0); "
        "mend or uninstall the package that gives it"
    )


def test_a_plugin_does_not_shadow_what_is_built_in(install):
    before = registry.passes()["fold-constants"]
    install("thief", HEADER + GOOD.format(name="fold-constants"), passes="fold-constants = thief_module:Good")
    assert registry.passes()["fold-constants"] is before
    assert reasons() == [("fold-constants", "thief 1.0", "the name is taken: fold-constants is built in")]


def test_two_plugins_with_one_name(install):
    for package in ("first", "second"):
        install(package, HEADER + GOOD.format(name="same"), passes=f"same = {package}_module:Good")
    why = "the name is given by more than one package: first 1.0, second 1.0"
    assert sorted(reasons()) == [("same", "first 1.0", why), ("same", "second 1.0", why)]
    assert "same" not in registry.passes()


def test_recipes_of_plugins(install):
    names = {"soup": "SOUP", "soup-2": "SECOND", "fold-constants": "CLEAN", "three": "NUMBER"}
    points = "\n".join(f"{name} = cook_module:{attribute}" for name, attribute in names.items())
    install("cook", "SOUP = 'clean,soup-2'\nSECOND = 'remove-dead-code'\nCLEAN = 'clean'\nNUMBER = 3", recipes=points)
    assert str(parse("soup").expanded()) == f"{registry.recipes()['clean']},remove-dead-code"
    assert reasons() == [
        ("fold-constants", "cook 1.0", "the name is taken: fold-constants is a pass"),
        ("three", "cook 1.0", "a recipe is a string"),
    ]


def test_a_recipe_that_contains_itself(install):
    install("loop", "TEXT = 'clean,repeat<2>(round)'", recipes="round = loop_module:TEXT")
    with pytest.raises(DeburrError) as caught:
        parse("round")
    assert str(caught.value) == (
        "error[E201]: the recipe 'round' contains itself, in the recipe 'round', at column 17, 'round'"
    )


def test_find_names_the_nearest_and_lists_all():
    with pytest.raises(DeburrError) as caught:
        registry.observers().find("minmx", "E203", "observer")
    assert str(caught.value) == (
        f"error[E203]: no observer 'minmx': there are {', '.join(sorted(registry.OBSERVERS))}; did you mean 'minmax'?"
    )
