"""torch is optional: what needs it says so in one line before anything runs, and all else works."""

import subprocess
import sys

import onnx
import pytest
from models import conv_chain

import deburr
import deburr.train
from deburr.ir.errors import DeburrError
from deburr.ir.onnx_reader import read
from deburr.passes import registry

TRAINING = ("finetune", "prune-finetune", "qat")


@pytest.fixture
def no_torch(monkeypatch):
    """As if it were not installed, for whoever looks and for whoever imports."""
    monkeypatch.setitem(sys.modules, "torch", None)


@pytest.mark.parametrize("name", TRAINING)
def test_a_pass_says_so_before_the_others_run(name, no_torch):
    started = []

    class Listener:
        def __getattr__(self, event):
            return lambda *given: started.append(event)

    with pytest.raises(DeburrError) as caught:
        deburr.optimize(read(conv_chain()), f"clean,{name}", data={"x": _images()}, instruments=[Listener()])
    assert str(caught.value) == (
        f"error[E902]: torch is missing, pass {name}: it computes the gradients; pip install 'deburr[train]'"
    )
    assert started == []


def test_to_torch_says_so(no_torch):
    with pytest.raises(DeburrError) as caught:
        deburr.train.to_torch(read(conv_chain()))
    assert str(caught.value) == (
        "error[E902]: torch is missing, deburr.train.to_torch: it computes the gradients; pip install 'deburr[train]'"
    )


def test_everything_else_works(no_torch):
    small = deburr.optimize(read(conv_chain()), "clean,prune-channels{round_to=1},compensate,quantize", data={"x": _images()})
    assert any(node.op == "QuantizeLinear" for node in small.graph.nodes)
    assert registry.broken() == []
    assert set(TRAINING) <= set(registry.passes())


def test_the_command_line_gives_one_line(tmp_path):
    onnx.save(conv_chain(), tmp_path / "model.onnx")
    hide = "import sys; sys.modules['torch'] = None; from deburr.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", hide, "optimize", "model.onnx", "-o", "out.onnx", "-p", "clean,finetune"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        "error[E902]: torch is missing, pass finetune: it computes the gradients; pip install 'deburr[train]'"
    ]
    assert not (tmp_path / "out.onnx").exists()


def test_passes_that_train_load_torch_only_to_run():
    code = (
        "import sys, deburr.train; from deburr.passes import registry; dict(registry.passes()); print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def _images():
    import numpy as np

    return np.random.default_rng(0).standard_normal((40, 3, 8, 8)).astype(np.float32)
