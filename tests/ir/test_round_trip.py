"""Reader and writer together: what goes in comes out. ONNX's own test models, all of them, run in ONNX Runtime."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from round_trip import NotRun, assert_same_statement, execute, same, session

from deburr.ir.onnx_reader import read
from deburr.ir.onnx_writer import to_proto

DATA = Path(onnx.__file__).parent / "backend" / "test" / "data"
LIGHT = sorted((DATA / "light").glob("*.onnx"))
FOLDERS = sorted(
    path.parent for name in ("simple", "pytorch-converted", "pytorch-operator") for path in (DATA / name).glob("*/*.onnx")
)
CHUNKS = 12


@cache
def node_cases():
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return collect_testcases(None)


def outcome(before: onnx.ModelProto, data_sets) -> str:
    """Round trip of a model and its data: "" if ONNX Runtime ran both alike, else why it cannot run the original."""
    after = to_proto(read(before))
    assert_same_statement(before, after)
    try:
        try:
            first = session(before)
        except Exception as error:
            raise NotRun(str(error)) from error
        expected = [execute(first, inputs) for inputs in data_sets]
    except NotRun as error:
        return reason(str(error))
    second = session(after)
    for inputs, outputs in zip(data_sets, expected, strict=True):
        assert same(outputs, execute(second, inputs))
    return ""


def reason(message: str) -> str:
    """The kind of a refusal of ONNX Runtime."""
    kinds = {
        "NOT_IMPLEMENTED": "no kernel", "not a registered": "unknown operator", "is under development": "opset too new",
        "MLDataType": "numpy lacks the type", "umpy type": "numpy lacks the type", "Numpy_type": "numpy lacks the type",
        "during initialization": "its session fails", "Non-zero status code": "its kernel fails",
    }  # fmt: skip
    return next((kind for text, kind in kinds.items() if text in message), message[:120].replace("\n", " "))


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_node_cases(chunk, record_property):
    broken, ran, skipped = [], 0, 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for case in node_cases()[chunk::CHUNKS]:
            try:
                why = outcome(case.model, [inputs for inputs, _ in case.data_sets])
            except Exception as error:
                broken.append(f"{case.name}: {type(error).__name__}: {str(error)[:300]}")
                continue
            ran, skipped = ran + (not why), skipped + bool(why)
            if why:
                record_property("round trip exception", (why, case.name))
    record_property("round trip count", ("identical in ONNX Runtime", ran))
    record_property("round trip count", ("compared by statement alone", skipped))
    assert not broken, "\n".join(broken)
    assert ran > 5 * skipped


@pytest.mark.parametrize("path", LIGHT, ids=lambda path: path.stem)
def test_light_models(path):
    model = onnx.load(path)
    constants = {tensor.name for tensor in model.graph.initializer}
    random = np.random.default_rng(0)
    shapes = [
        [dim.dim_value for dim in info.type.tensor_type.shape.dim] for info in model.graph.input if info.name not in constants
    ]
    assert not outcome(model, [[random.standard_normal(shape).astype(np.float32) for shape in shapes]])


@pytest.mark.parametrize("chunk", range(2))
def test_stored_cases(chunk, record_property):
    for folder in FOLDERS[chunk::2]:
        files = sorted((folder / "test_data_set_0").glob("input_*.pb"), key=lambda file: int(file.stem.split("_")[1]))
        model = onnx.load(folder / "model.onnx")
        why = outcome(model, [[stored(file, info) for file, info in zip(files, model.graph.input, strict=False)]])
        if why:
            record_property("round trip exception", (why, folder.name))
        record_property("round trip count", ("compared by statement alone" if why else "identical in ONNX Runtime", 1))


def stored(file: Path, info: onnx.ValueInfoProto):
    """The input in a .pb file, which is a tensor or a sequence as the model says."""
    if info.type.HasField("sequence_type"):
        return numpy_helper.to_list(onnx.SequenceProto.FromString(file.read_bytes()))
    if info.type.HasField("optional_type"):
        return numpy_helper.to_optional(onnx.OptionalProto.FromString(file.read_bytes()))
    return numpy_helper.to_array(onnx.TensorProto.FromString(file.read_bytes()))
