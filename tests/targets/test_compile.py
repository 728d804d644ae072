"""From a model to a bundle: the worker's crashes stay its own, the numbers are checked, the bytes repeat."""

import hashlib
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from models import Builder, branch_on_sum, conv_chain, residual_block, samples
from program import quantized

from deburr.ir.errors import DeburrError
from deburr.ir.evaluate import Evaluator
from deburr.ir.onnx_reader import read
from deburr.targets import check, process
from deburr.targets import compile as compiling
from deburr.targets.bundle import Bundle
from deburr.targets.target import find

HOST = "x86-64-v3"


def build(proto, path, **options):
    return compiling.compile(
        read(proto), path, target=find(options.pop("target", HOST)), threads=options.pop("threads", 1), **options
    )


def pretend(monkeypatch, code):
    """Put a script in the worker's place."""
    monkeypatch.setattr(process, "worker_command", lambda folder: [sys.executable, "-c", code])


def test_a_crash_is_an_error_with_the_worker_s_last_words(tmp_path, monkeypatch):
    pretend(monkeypatch, "import os, sys; print('half way'); sys.stdout.flush(); os.kill(os.getpid(), 11)")
    with pytest.raises(DeburrError) as caught:
        build(conv_chain(), tmp_path / "b")
    text = str(caught.value)
    assert text.startswith("error[E403]: the compiler failed: the worker died by SIGSEGV; its last words: half way; its log: ")
    assert "\n" not in text
    assert not (tmp_path / "b").exists()


def test_a_hang_is_ended(tmp_path, monkeypatch):
    pretend(monkeypatch, "import time; time.sleep(60)")
    with pytest.raises(DeburrError, match=r"error\[E404\]: the compiler ran out of time: 0.5 s were not enough") as caught:
        build(conv_chain(), tmp_path / "b", time_limit_s=0.5)
    assert caught.value.exit_code == 1


def test_a_worker_that_writes_nothing_failed(tmp_path, monkeypatch):
    pretend(monkeypatch, "print('bye')")
    with pytest.raises(DeburrError, match="the worker ended with status 0; its last words: bye"):
        build(conv_chain(), tmp_path / "b")


def test_too_little_memory_is_the_worker_s_end_only(tmp_path):
    with pytest.raises(DeburrError, match=r"error\[E403\]"):
        build(conv_chain(), tmp_path / "b", memory_limit_mb=300)


def test_no_c_compiler(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(DeburrError) as caught:
        build(conv_chain(), tmp_path / "b")
    assert str(caught.value) == ("error[E405]: no C compiler: none of cc, gcc, clang is on the PATH; apt-get install gcc")


def test_an_operator_that_nobody_supports_comes_back_from_the_worker(tmp_path):
    with pytest.raises(DeburrError, match=r"error\[E402\]: the operator If cannot be compiled"):
        build(branch_on_sum(), tmp_path / "b")


def test_wrong_numbers_are_refused(tmp_path, monkeypatch):
    original = process._outcome

    def spoiled(*given):
        built = original(*given)
        built.outputs["main"][0][:] += 1
        return built

    monkeypatch.setattr(process, "_outcome", spoiled)
    with pytest.raises(DeburrError, match=r"error\[E403\]: the compiled program computes other numbers, output 'y'"):
        build(conv_chain(), tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_an_open_axis_asks_for_a_size(tmp_path):
    builder = Builder()
    builder.conv("x", 3, 4, output="y")
    proto = builder.model({"x": ["batch", 3, "height", 8]}, {"y": ["batch", 4, "height", 8]})
    with pytest.raises(DeburrError) as caught:
        build(proto, tmp_path / "b")
    assert str(caught.value) == (
        "error[E901]: a size is open, input 'x', axis 2: the model declares float[batch, 3, height, 8] and code is made for "
        "fixed sizes; give symbols={'height': SIZE} to compile, or fix the shape in the model"
    )
    bundle = build(proto, tmp_path / "b", symbols={"height": 6})
    assert bundle.run({"x": np.zeros((3, 3, 6, 8), np.float32)})["y"].shape == (3, 4, 6, 8)


def test_an_open_axis_without_a_symbol_gets_its_size_by_place(tmp_path):
    """Paddle writes "?" at every axis that it leaves open: that is no symbol, or height and width would be equal."""
    builder = Builder()
    builder.conv("x", 3, 4, output="y")
    proto = builder.model({"x": ["?", 3, "?", "?"]}, {"y": ["?", 4, "?", "?"]})
    with pytest.raises(DeburrError) as caught:
        build(proto, tmp_path / "b", symbols={"x.2": 6})
    assert str(caught.value) == (
        "error[E901]: a size is open, input 'x', axis 3: the model declares float[?, 3, ?, ?] and code is made for fixed "
        "sizes; give symbols={'x.3': SIZE} to compile, or fix the shape in the model"
    )
    bundle = build(proto, tmp_path / "b", symbols={"x.2": 6, "x.3": 8})
    assert bundle.run({"x": np.zeros((3, 3, 6, 8), np.float32)})["y"].shape == (3, 4, 6, 8)


def test_the_same_model_gives_the_same_bytes(tmp_path):
    proto = quantized(residual_block())
    build(proto, tmp_path / "a")
    (tmp_path / "elsewhere").mkdir()
    build(proto, tmp_path / "elsewhere" / "b")
    for name in ("model.so", "manifest.json"):
        first, second = ((folder / name).read_bytes() for folder in (tmp_path / "a", tmp_path / "elsewhere" / "b"))
        assert hashlib.sha256(first).hexdigest() == hashlib.sha256(second).hexdigest(), name
        assert b"deburr-build" not in first


def test_many_samples_run_in_parts_and_threads_change_no_bit(tmp_path):
    proto = quantized(residual_block(32, 16))
    data = samples(proto, 7)
    bundle = build(proto, tmp_path / "b", batch=2)
    expected = Evaluator(read(proto)).run(data)["y"]
    results = bundle.run(data)["y"]
    assert results.shape == expected.shape
    np.testing.assert_allclose(results, expected, atol=0.1 * np.abs(expected).max())
    np.testing.assert_array_equal(Bundle.open(tmp_path / "b", threads=2).run(data)["y"], results)


def test_the_model_given_is_not_changed(tmp_path):
    from deburr.ir.onnx_writer import to_proto

    model = read(conv_chain())
    before = to_proto(model).SerializeToString()
    compiling.compile(model, tmp_path / "b", target=find(HOST), threads=1)
    assert to_proto(model).SerializeToString() == before


def test_a_check_that_could_not_be_made_is_said(tmp_path, monkeypatch):
    def refuse(*_):
        raise DeburrError("E108", "the model cannot be executed", why="no kernel for Relu")

    monkeypatch.setattr("deburr.targets.check.Evaluator", refuse)
    bundle = build(conv_chain(), tmp_path / "b")
    expected = "the numbers were not checked: ONNX Runtime cannot run the model (no kernel for Relu)"
    assert expected in bundle.manifest["remarks"]


def test_where_onnx_runtime_differs_from_itself_the_program_may_as_well(monkeypatch):
    """PP-OCR's recogniser, as ONNX Runtime quantizes it, moves by 0.09 on noise with the way it is run: either is right."""

    class Spread(check.Evaluator):
        def __init__(self, model, *, optimize=False):
            super().__init__(model, optimize=optimize)
            self._factor = 1.08 if optimize else 1.0

        def run(self, inputs):
            return {name: array * self._factor for name, array in super().run(inputs).items()}

    model = read(quantized(conv_chain(batch=2)))
    inputs = check.inputs_for(model, None, 0)
    exact = check.Evaluator(model).run(dict(zip([value.name for value in model.graph.inputs], inputs, strict=True)))["y"]
    assert check.compare(model, inputs, [exact * 1.05], Path("log")) == ""
    with pytest.raises(DeburrError, match=r"relative error 0.15 against ONNX Runtime, 0.1 is allowed"):
        check.compare(model, inputs, [exact * 1.15], Path("log"))
    monkeypatch.setattr(check, "Evaluator", Spread)
    assert check.compare(model, inputs, [exact * 1.15], Path("log")) == (
        "rounding weighs much in this model: 'y' is 0.15 from ONNX Runtime's, which is 0.08 from its own with "
        "optimizations; compare them on real data"
    )
    with pytest.raises(DeburrError, match=r"relative error 0.17 against ONNX Runtime, 0.1 is allowed"):
        check.compare(model, inputs, [exact * 1.17], Path("log"))


def test_a_size_that_depends_on_the_data_names_its_node(tmp_path):
    builder = Builder()
    places = builder.node("NonZero", [builder.conv("x", 3, 8)])
    builder.node("Cast", [places], "y", to=int(onnx.TensorProto.FLOAT))
    proto = builder.model({"x": [1, 3, 8, 8]}, {"y": [4, "count"]})
    with pytest.raises(DeburrError, match=r"^error\[E402\]: the operator NonZero cannot be compiled, .* depends on the data"):
        build(proto, tmp_path / "b", check=False)
