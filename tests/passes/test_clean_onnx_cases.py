"""The clean recipe on every node test of the onnx package: valid, settled after one run, and the same numbers."""

import warnings

import numpy as np
import onnx
import onnxruntime
import pytest

from deburr.ir.onnx_reader import read
from deburr.ir.onnx_writer import to_proto
from deburr.passes import manager
from deburr.passes.core import Context
from deburr.passes.instruments import VerifyEach
from deburr.passes.pipeline import parse

PARTS = 8


def _cases(part: int) -> list:
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return sorted(collect_testcases(None), key=lambda case: case.name)[part::PARTS]


def _run(proto: onnx.ModelProto, inputs: dict) -> list:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def _assert_same(found, expected, name: str) -> None:
    """Tensors and sequences of tensors. Half precision may be rounded once less: ONNX Runtime computes it in single."""
    if isinstance(expected, list):
        assert len(found) == len(expected), name
        for one, other in zip(found, expected, strict=True):
            _assert_same(one, other, name)
    elif expected is None or expected.dtype.kind in "OUS":
        assert np.array_equal(found, expected), name
    else:
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape), name
        tolerance = 2e-3 if expected.dtype == np.float16 else 1e-5
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_onnx_node_cases(part):
    compared = 0
    for case in _cases(part):
        model = read(case.model)
        manager.run(parse("clean"), Context(model), [VerifyEach()])
        revision = model.revision
        manager.run(parse("clean"), Context(model))
        assert model.revision == revision, f"{case.name}: a second run changes something"
        after = to_proto(model)
        assert [value.name for value in after.graph.output] == [value.name for value in case.model.graph.output]
        draws = any(node.op_type in ("Bernoulli", "RandomUniformLike", "RandomNormalLike") for node in case.model.graph.node)
        if draws or not case.data_sets:
            continue
        inputs = {info.name: array for info, array in zip(case.model.graph.input, case.data_sets[0][0], strict=False)}
        try:
            expected = _run(case.model, inputs)
        except Exception:  # ONNX Runtime has no kernel for it; its exceptions share no base but this one
            continue
        _assert_same(_run(after, inputs), expected, case.name)
        compared += 1
    assert compared > 150
