"""Every torch function against the node tests of the onnx package: the inputs, and the outputs that the specification gives."""

import warnings

import numpy as np
import onnx
import pytest

from deburr.ir.onnx_reader import read

pytest.importorskip("torch", reason="the extra deburr[train] is not installed")

PARTS = 4


def cases(part: int) -> list:
    from onnx.backend.test.case.node import collect_testcases

    from deburr.passes.recover.operators.table import functions

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = [case for case in collect_testcases(None) if len(case.model.graph.node) == 1]
    return [case for case in found if case.model.graph.node[0].op_type in functions()][part::PARTS]


@pytest.mark.parametrize("part", range(PARTS))
def test_onnx_node_cases(part):
    for case in cases(part):
        for inputs, expected in case.data_sets:
            _compare(case, inputs, expected)


def _compare(case, inputs, expected) -> None:
    import torch

    from deburr.passes.recover.module import TorchModel
    from deburr.passes.recover.operators.generation import tensor_of
    from deburr.passes.recover.operators.table import Uncovered

    print(case.name)
    names = [value.name for value in case.model.graph.input]
    try:
        tensors = {name: tensor_of(array) for name, array in zip(names, inputs, strict=True)}
        module = TorchModel(read(case.model))
        found = list(module(tensors).values())
    except (Uncovered, TypeError) as e:
        print("UNCOVERED", e)
        return
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.numpy(), other, rtol=1e-4, atol=1e-5)
