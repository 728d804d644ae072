"""Every model of the matrices in every other format: valid, near the float model, and a second run changes nothing."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from deburr.ir.onnx_reader import read
from deburr.ir.onnx_writer import to_proto
from deburr.passes.core import Context
from deburr.passes.instruments import VerifyEach
from deburr.passes.manager import run
from deburr.passes.pipeline import parse

from .matrix import FROZEN, PRUNABLE, case
from .quantization_matrix import CASES, calibration
from .quantizing import outputs, sqnr
from .test_transformers import sequence_model
from .topologies_transformer import TOPOLOGIES as TRANSFORMERS

MODELS = {
    **{name: lambda name=name: case(name) for name in (*PRUNABLE, *FROZEN)},
    **{name: lambda name=name: sequence_model(TRANSFORMERS[name]) for name in TRANSFORMERS},
    **{name: entry.make for name, entry in CASES.items() if entry.spoil is None},
}
FORMATS = {  # decibels that every output reaches
    "quantize-weights": 30,
    "quantize-weights{bits=4,smallest=1}": 5,
    "quantize-dynamically": 22,
    "convert-float16": 45,
    "convert-float16{keep_io=false,precise=none}": 40,
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_in_every_format(name):
    proto = MODELS[name]()
    data = calibration(proto, 4)
    exact = outputs(proto, data)
    for text, least in FORMATS.items():
        context = Context(read(proto))
        run(parse(text), context, [VerifyEach()])
        result = to_proto(context.model)
        onnx.checker.check_model(result, full_check=True)
        onnx.shape_inference.infer_shapes(result, check_type=True, strict_mode=True, data_prop=True)
        for optimize in (False, True):
            given = outputs(result, {info.name: _typed(data[info.name], info) for info in result.graph.input}, optimize)
            assert all(_near(before, after, least) for before, after in zip(exact, given, strict=True)), text
        revision = context.model.revision
        run(parse(text), context)
        assert context.model.revision == revision, text


def _typed(array: np.ndarray, info: onnx.ValueInfoProto) -> np.ndarray:
    return array.astype(onnx.helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type))


def _near(before: np.ndarray, after: np.ndarray, least: float) -> bool:
    if before.dtype.kind != "f":
        return np.array_equal(before, after)
    return sqnr(before, after.astype(np.float32)) > least
