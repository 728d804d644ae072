"""Makes `from models import ...` (tests/models.py) work in every test, whatever folder it stands in; golden files.

Property tests try the same examples in every CI run, so that a change is judged by what it changed; new ones everywhere else.
"""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))

settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "explore")


def pytest_addoption(parser):
    parser.addoption("--update-golden", action="store_true", help="rewrite tests/golden with what the code gives now")


@pytest.fixture
def golden(request):
    """`golden(name, text)` holds a text to tests/golden/<name>, or writes it there under --update-golden."""

    def check(name: str, text: str) -> None:
        path = Path(__file__).parent / "golden" / name
        if request.config.getoption("--update-golden"):
            path.write_text(text, encoding="utf-8")
        assert path.exists(), f"no {path.name}: run pytest with --update-golden once, and read what it wrote"
        assert text == path.read_text(encoding="utf-8")

    return check
