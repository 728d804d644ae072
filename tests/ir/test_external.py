"""Weights in a file of their own: written when asked for or when one file cannot hold them, read back lazily."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from models import conv_chain, samples

from deburr.ir import onnx_external
from deburr.ir.errors import DeburrError
from deburr.ir.evaluate import Evaluator
from deburr.ir.files import write_atomically
from deburr.ir.onnx_reader import read
from deburr.ir.onnx_writer import to_proto, write


@pytest.fixture
def model():
    return read(conv_chain((3, 16, 32)))


def content(model) -> dict[str, bytes]:
    return {value.name: value.array.tobytes() for value in model.graph.constants}


def test_asked_for(model, tmp_path):
    write(model, tmp_path / "m.onnx", external=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.onnx", "m.onnx.data"]
    stored = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    outside = [tensor for tensor in stored.graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL]
    assert {tensor.name for tensor in outside} == {v.name for v in model.graph.constants if v.constant.nbytes >= 1024}
    assert outside
    onnx.checker.check_model(str(tmp_path / "m.onnx"))
    back = read(tmp_path / "m.onnx")
    assert not any(back.graph.value(tensor.name).constant.is_loaded for tensor in outside)
    assert content(back) == content(model)


def test_inside_unless_too_big(model, tmp_path, monkeypatch):
    write(model, tmp_path / "m.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
    monkeypatch.setattr(onnx_external, "LIMIT", 10_000)
    write(model, tmp_path / "m.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.onnx", "m.onnx.data"]
    assert content(read(tmp_path / "m.onnx")) == content(model)


def test_deterministic(model, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write(model, tmp_path / name / "m.onnx", external=True)
    for file in ("m.onnx", "m.onnx.data"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_over_the_files_that_it_came_from(model, tmp_path):
    path = tmp_path / "m.onnx"
    write(model, path, external=True)
    again = read(path)
    first = next(value for value in again.graph.constants if value.constant.nbytes > 1024)
    expected = content(model)
    again.graph.set_constant(first, np.zeros((999, 7), np.float32))  # every offset behind it moves
    write(again, path, external=True)
    expected[first.name] = bytes(999 * 7 * 4)
    assert content(again) == expected
    assert content(read_unchecked(path)) == expected


def read_unchecked(path):
    from deburr.ir.onnx_load import load
    from deburr.ir.onnx_reader import convert

    loaded = load(path)
    return convert(loaded.proto, loaded.folder)


def test_nothing_is_replaced_where_writing_fails(model, tmp_path):
    (tmp_path / "m.onnx").mkdir()
    (tmp_path / "m.onnx.data").write_bytes(b"old")
    with pytest.raises(DeburrError) as caught:
        write(model, tmp_path / "m.onnx", external=True)
    assert str(caught.value) == (
        f"error[E109]: cannot write, {tmp_path}/m.onnx: a folder stands where the file should go; choose a folder that can be "
        "written to"
    )
    assert (tmp_path / "m.onnx.data").read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.onnx", "m.onnx.data"]


def test_a_failing_writer_leaves_no_trace(tmp_path):
    (tmp_path / "file").write_text("old")

    def fail(fresh):
        fresh.write_text("half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_atomically(tmp_path / "file", fail)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "old")]


def test_missing_folder(model, tmp_path):
    with pytest.raises(DeburrError) as caught:
        write(model, tmp_path / "none" / "m.onnx")
    assert str(caught.value) == (
        f"error[E109]: cannot write, {tmp_path}/none/m.onnx: No such file or directory; choose a folder that can be written to"
    )


def test_shared_constants_are_stored_once(model, tmp_path):
    value = next(value for value in model.graph.constants if value.constant.nbytes > 1024)
    model.graph.add_constant(value.constant, "twin")
    layout = onnx_external.Layout.of(model, "data")
    twin, own = layout.tensor(value.constant, "twin"), layout.tensor(value.constant, value.name)
    assert list(twin.external_data) == list(own.external_data)


def test_evaluator_beyond_the_limit(model, monkeypatch):
    data = samples(to_proto(model))
    expected = Evaluator(model).run(data)
    monkeypatch.setattr(onnx_external, "LIMIT", 10_000)
    name = next(node.outputs[0].name for node in model.graph.nodes if node.op == "Relu")
    found = Evaluator(model, capture=[name]).run(data)
    assert found["y"].tobytes() == expected["y"].tobytes()
    assert found[name].min() == 0
