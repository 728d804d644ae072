"""Every torch function against the node tests of the onnx package: the inputs, and the outputs that the specification gives."""

import functools
import warnings

import numpy as np
import pytest
from models import Builder, samples
from onnx import TensorProto, helper

from deburr.ir.evaluate import Evaluator
from deburr.ir.onnx_reader import read

torch = pytest.importorskip("torch", reason="the extra deburr[train] is not installed")

PARTS = 4
TYPES = {np.dtype(name) for name in ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")}
# Expected values that are random, that ONNX Runtime refuses, or that the package gives with 4 digits.
UNFIT = ("test_training_dropout", "test_reduce_max_empty_set_bool", "test_averagepool_2d_ceil_last_window_starts_on_pad")


@functools.cache
def cases() -> list:
    from onnx.backend.test.case.node import collect_testcases

    from deburr.passes.recover.operators.table import functions

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = [case for case in collect_testcases(None) if len(case.model.graph.node) == 1]
    return [case for case in found if case.model.graph.node[0].op_type in functions() and not case.name.startswith(UNFIT)]


def data_of(case) -> tuple[dict, list] | None:
    """The tensors of a case, or None where torch has no such type."""
    inputs, expected = case.data_sets[0]
    if any(getattr(array, "dtype", None) not in TYPES for array in (*inputs, *expected)):
        return None
    names = [value.name for value in case.model.graph.input]
    return {name: torch.from_numpy(np.array(array)) for name, array in zip(names, inputs, strict=True)}, expected


@pytest.mark.parametrize("part", range(PARTS))
def test_onnx_node_cases(part):
    """Forms that a function does not cover are left out: they run in ONNX Runtime, which is tested elsewhere."""
    from deburr.passes.recover.learning.module import TorchModel

    compared = 0
    for case in cases()[part::PARTS]:
        data = data_of(case)
        if data is None:
            continue
        module = TorchModel(read(case.model))
        found = [tensor.numpy() for tensor in module(data[0]).values()]
        if module.in_onnx_runtime:
            continue
        for one, other in zip(found, data[1], strict=True):
            assert (one.dtype, one.shape) == (other.dtype, other.shape), case.name
            tolerance = 2e-3 if other.dtype == np.float16 else 1e-4
            np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance / 10, err_msg=case.name)
        compared += 1
    assert compared > 120


def test_every_function_has_a_case():
    """An operator enters the table with a test of the specification's own; casts have one below."""
    from deburr.passes.recover.operators.table import functions

    tested = {case.model.graph.node[0].op_type for case in cases() if data_of(case) is not None}
    assert set(functions()) - tested == {"Cast", "CastLike"}


@pytest.mark.parametrize("to", [TensorProto.INT32, TensorProto.BOOL, TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_casts_give_what_onnx_runtime_gives(to):
    from deburr.passes.recover.learning.module import TorchModel

    builder = Builder()
    like = builder.constant(np.zeros(1, helper.tensor_dtype_to_np_dtype(to)))
    builder.node("Cast", [builder.node("CastLike", ["x", like])], "y", to=TensorProto.FLOAT)
    proto = builder.model({"x": ["n", 5]}, {"y": ["n", 5]})
    data = samples(proto)
    found = TorchModel(read(proto))({"x": torch.from_numpy(data["x"])})["y"]
    np.testing.assert_array_equal(found.numpy(), Evaluator(read(proto)).run(data)["y"])
