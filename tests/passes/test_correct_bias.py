"""correct-bias, one layer after the other: each makes up for what the quantized layers before it do to its mean."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from models import Builder, conv_chain, residual_block, samples

from deburr.ir.errors import DeburrError
from deburr.ir.onnx_writer import to_proto

from .quantizing import mobilenet, optimized, outputs

COARSE = "clean,calibrate{{observer=minmax,dialect={dialect}}},scale-weights{{bits={bits},smallest=1,dialect={dialect}}}"


def _mean_error(proto: onnx.ModelProto, step: str, dialect: str = "ort", bits: int = 4) -> float:
    """The largest difference of an output channel's mean, relative to the spread of the outputs, on the calibration data."""
    pipeline = f"{COARSE.format(dialect=dialect, bits=bits)}{step},insert-qdq{{dialect={dialect}}}"
    context, data = optimized(proto, pipeline), samples(proto, 40)
    made = to_proto(context.model)
    onnx.checker.check_model(made, full_check=True)
    before, after = outputs(proto, data)[0], outputs(made, data)[0]
    return float(np.abs((after - before).mean(axis=0)).max() / before.std())


@pytest.mark.parametrize("dialect", ["ort", "tensorrt"])
@pytest.mark.parametrize("make", [conv_chain, residual_block, mobilenet])
def test_no_mean_error_is_left_at_the_output(make, dialect):
    """The last layer ends in float, so that nothing is rounded behind its bias."""
    proto = make()
    plain = _mean_error(proto, "", dialect)
    fast = _mean_error(proto, f",correct-bias{{dialect={dialect}}}", dialect)
    sequential = _mean_error(proto, f",correct-bias{{mode=sequential,dialect={dialect}}}", dialect)
    assert sequential < 2e-3
    assert sequential < fast / 3
    assert plain > 0.02


def test_a_layer_without_a_bias_gets_one():
    builder = Builder()
    x = builder.node("Relu", [builder.conv("x", 3, 8)])
    weights = builder.weight(4, 8, 3, 3)
    builder.node("Conv", [x, weights], "y", pads=[1, 1, 1, 1])
    proto = builder.model({"x": ["batch", 3, 8, 8]}, {"y": ["batch", 4, 8, 8]})
    made = optimized(proto, f"{COARSE.format(dialect='ort', bits=4)},correct-bias{{mode=sequential}}").model
    conv = [node for node in made.graph.nodes if node.op == "Conv"][-1]
    assert np.any(conv.input(2).array)


def test_sequential_looks_at_as_many_samples_as_it_is_told():
    proto = conv_chain()
    few, many = (
        to_proto(optimized(proto, f"clean,calibrate,scale-weights,correct-bias{{mode=sequential,samples={count}}}").model)
        for count in (5, 40)
    )
    assert few.SerializeToString(deterministic=True) != many.SerializeToString(deterministic=True)
    with pytest.raises(DeburrError) as caught:
        optimized(proto, "correct-bias{mode=sequential,samples=0}")
    assert str(caught.value) == (
        "error[E203]: samples is out of range, pass correct-bias{mode=sequential,samples=0}; it is at least 1"
    )


def test_a_model_with_subgraphs_is_corrected_all_at_once():
    builder = Builder()
    x = builder.node("Relu", [builder.conv("x", 3, 8)])
    positive = builder.node("Greater", [builder.node("ReduceSum", ["x"], keepdims=0), builder.constant(np.float32(0))])

    def branch(op: str) -> onnx.GraphProto:
        info = onnx.helper.make_tensor_value_info(op, onnx.TensorProto.FLOAT, ["batch", 8, 8, 8])
        return onnx.helper.make_graph([onnx.helper.make_node(op, [x], [op])], op, [], [info])

    y = builder.node("If", [positive], then_branch=branch("Relu"), else_branch=branch("Neg"))
    builder.conv(y, 8, 4, output="y")
    proto = builder.model({"x": ["batch", 3, 8, 8]}, {"y": ["batch", 4, 8, 8]})
    steps = f"{COARSE.format(dialect='ort', bits=4)},correct-bias{{mode=%s}}"
    fast, sequential = (optimized(proto, steps % mode) for mode in ("fast", "sequential"))
    assert any(remark.reason == "it holds subgraphs: biases are corrected all at once" for remark in sequential.remarks)
    assert to_proto(fast.model).SerializeToString() == to_proto(sequential.model).SerializeToString()
