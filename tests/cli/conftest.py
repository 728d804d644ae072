"""A folder to work in, and how a command that fails has to look."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from models import residual_block

from deburr.cli import main


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with m.onnx (a residual block on x [batch, 3, 8, 8]) and c.npz (16 samples)."""
    monkeypatch.chdir(tmp_path)
    onnx.save(residual_block(), "m.onnx")
    np.savez("c.npz", x=np.random.default_rng(0).standard_normal((16, 3, 8, 8)).astype(np.float32))
    return tmp_path


@pytest.fixture
def fails(folder: Path, capfd: pytest.CaptureFixture[str]):
    """Run a command that fails: `fails(status, line)` is what it said; nothing is on stdout, and no file is new."""

    def run(status: int, line: str) -> str:
        before = sorted(folder.rglob("*"))
        assert main(line.split()) == status
        out, error = capfd.readouterr()
        assert out == ""
        assert sorted(folder.rglob("*")) == before
        assert "Traceback" not in error
        return error.removesuffix("\n")

    return run
