"""Compact storage: smaller files, the same outputs, and weights that come back."""

from __future__ import annotations

import zlib

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from models import Builder, conv_chain, perceptron, samples

from deburr.ir.evaluate import Evaluator
from deburr.ir.onnx_reader import read
from deburr.ir.onnx_writer import to_proto
from deburr.passes import manager
from deburr.passes.core import Context
from deburr.passes.instruments import VerifyEach
from deburr.passes.pipeline import parse
from deburr.passes.prune.encodings import indexed, masked, sparse_proto


def optimized(proto, pipeline):
    context = Context(read(proto))
    manager.run(parse(pipeline), context, [VerifyEach()])
    made = to_proto(context.model)
    onnx.checker.check_model(made, full_check=True)
    return made, context


def same_outputs(one, other):
    data = samples(one)
    expected, found = (Evaluator(read(proto)).run(data) for proto in (one, other))
    return all(np.array_equal(array, found[name]) for name, array in expected.items())


CHAIN = conv_chain((3, 32, 64))


@pytest.mark.parametrize(
    ("opset", "sparse", "share"),
    [
        (11, "prune-weights{sparsity=0.8}", 0.2 + 1 / 32 + 0.1),
        (17, "prune-weights{pattern=(2,4)}", 0.5 + 1 / 32 + 0.1),
        (17, "cluster-weights{clusters=16}", 1 / 4 + 0.1),
        (21, "cluster-weights{clusters=16}", 1 / 8 + 0.1),
        (17, "cluster-weights{clusters=200}", 1 / 4 + 0.1),
        (21, "prune-weights{sparsity=0.8},cluster-weights{clusters=16}", 1 / 32 + 0.2 / 8 + 0.1),
    ],
)
def test_the_file_shrinks_and_computes_the_same(opset, sparse, share):
    dense, _ = optimized(CHAIN, f"raise-opset{{version={opset}}},clean,{sparse}")
    stored, _ = optimized(dense, "store-weights")
    assert stored.ByteSize() < share * dense.ByteSize()
    assert same_outputs(dense, stored)
    assert {one.version for one in stored.opset_import if not one.domain} == {max(opset, 17)}


def test_onnx_runtime_unpacks_it_when_it_loads_the_model(tmp_path):
    stored, _ = optimized(CHAIN, "clean,prune-weights{sparsity=0.8},store-weights")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    onnxruntime.InferenceSession(stored.SerializeToString(), options, providers=["CPUExecutionProvider"])
    operators = {node.op_type for node in onnx.load(tmp_path / "loaded.onnx").graph.node}
    assert not operators & {"Gather", "BitShift", "CumSum", "Cast"}


def test_folding_constants_makes_the_weights_dense_again():
    dense, _ = optimized(CHAIN, "clean,cluster-weights,prune-weights{sparsity=0.6}")
    stored, _ = optimized(dense, "store-weights")
    again, context = optimized(stored, "fold-constants,remove-dead-code")
    weights = {value.name: value.array for value in read(dense).graph.constants if value.array.ndim >= 2}
    for name, array in weights.items():
        np.testing.assert_array_equal(context.model.graph.value(name).array, array)
    assert len(again.graph.node) == len(dense.graph.node)


def test_dense_weights_stay_and_say_so():
    proto = perceptron((64, 64, 10))
    stored, context = optimized(proto, "store-weights")
    assert [node.op_type for node in stored.graph.node] == [node.op_type for node in proto.graph.node]
    assert "stays dense: it has too few zeros and too many values" in context.remarks[0].reason


def test_a_weight_that_two_layers_read_is_stored_once():
    builder = Builder()
    weight = builder.constant((np.arange(64 * 64) % 5).astype(np.float32).reshape(64, 64), "w")
    builder.node("MatMul", [builder.node("MatMul", ["x", weight]), weight], "y")
    proto = builder.model({"x": ["batch", 64]}, {"y": ["batch", 64]})
    stored, _ = optimized(proto, "store-weights")
    assert [node.op_type for node in stored.graph.node] == ["Cast", "Gather", "MatMul", "MatMul"]
    assert same_outputs(proto, stored)


arrays = hnp.arrays(
    st.sampled_from([np.float32, np.float16]), hnp.array_shapes(min_dims=1, max_dims=3, max_side=9),
    elements=st.sampled_from([0, 0, 0, 1, -2.5, 3, 0.125, *range(5, 30)]),
)  # fmt: skip


@given(arrays, st.booleans())
def test_indices_are_exact(array, four_bits):
    form = indexed(array, four_bits=four_bits)
    assert form is not None
    np.testing.assert_array_equal(form.table.array[np.asarray(form.indices.array, np.int64)], array)
    assert form.indices.dtype.bits == (4 if four_bits and len(np.unique(array)) <= 16 else 8)


@given(arrays)
def test_a_bitmask_and_a_sparse_tensor_are_exact(array):
    form = masked(array)
    ones = np.unpackbits(form.bits.array, bitorder="little", count=array.size).astype(np.int64)
    places = ones * np.cumsum(ones)
    np.testing.assert_array_equal(form.values.array[places].reshape(array.shape), array)
    sparse = sparse_proto(array)
    dense = np.zeros(array.size, array.dtype)
    dense[onnx.numpy_helper.to_array(sparse.indices)] = onnx.numpy_helper.to_array(sparse.values)
    np.testing.assert_array_equal(dense.reshape(tuple(sparse.dims)), array)


def test_nan_has_no_index():
    assert indexed(np.array([1, np.nan], np.float32)) is None


def test_a_stored_file_is_near_what_an_archive_of_the_dense_one_takes():
    """2:4 sparsity of random weights: what is left does not compress any further."""
    dense, _ = optimized(CHAIN, "clean,prune-weights{pattern=(2,4)}")
    stored, _ = optimized(dense, "store-weights")
    assert stored.ByteSize() < 1.1 * len(zlib.compress(dense.SerializeToString()))
