"""`keep` leaves layers in float by name, whatever the dialect would have done with them."""

from __future__ import annotations

import onnx
import pytest
from models import conv_chain, residual_block

from deburr.ir.errors import DeburrError
from deburr.ir.onnx_writer import to_proto
from deburr.passes.quantize.dialects import DIALECTS

from .quantizing import optimized, quality


def _made_by(proto: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    return {name: node for node in proto.graph.node for name in node.output}


def _float_layers(proto: onnx.ModelProto) -> list[str]:
    """The weights of layers that do not read them through a DequantizeLinear."""
    made = _made_by(proto)
    return [
        node.input[1] for node in proto.graph.node if node.op_type in ("Conv", "Gemm", "MatMul") and node.input[1] not in made
    ]


def _weights(proto: onnx.ModelProto) -> list[str]:
    return [node.input[1] for node in proto.graph.node if node.op_type in ("Conv", "Gemm")]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_named_layer_keeps_its_float_weights_and_the_others_do_not(dialect):
    proto = conv_chain((3, 8, 8, 8))
    cleaned = to_proto(optimized(proto, "clean").model)
    name = _weights(cleaned)[1]
    context = optimized(proto, f"clean,quantize{{rounding=nearest,dialect={dialect},keep=({name})}}")
    made = to_proto(context.model)
    onnx.checker.check_model(made, full_check=True)
    assert _float_layers(made) == [name]
    before, after = ({one.name: onnx.numpy_helper.to_array(one) for one in each.graph.initializer} for each in (cleaned, made))
    assert (before[name] == after[name]).all()
    assert any(remark.reason == "left in float: it is named by keep" for remark in context.remarks)
    assert not any(node.metadata_props for node in made.graph.node)
    assert quality(proto, made) > 20


def test_steps_after_calibrate_know_what_it_was_told():
    proto = conv_chain((3, 8, 8, 8))
    name = _weights(to_proto(optimized(proto, "clean").model))[1]
    whole = to_proto(optimized(proto, f"clean,quantize{{keep=({name})}}").model)
    steps = to_proto(optimized(proto, f"clean,calibrate{{keep=({name})}},scale-weights,round-weights,insert-qdq").model)
    assert whole.SerializeToString(deterministic=True) == steps.SerializeToString(deterministic=True)


def test_arithmetic_is_left_alone_too():
    proto = residual_block(shortcut=True)
    (name,) = [node.output[0] for node in proto.graph.node if node.op_type == "Add"]
    made = to_proto(optimized(proto, f"clean,calibrate,scale-weights,insert-qdq{{keep=({name})}}").model)
    (add,) = [node for node in made.graph.node if node.op_type == "Add"]
    readers = [node.op_type for node in made.graph.node if add.output[0] in node.input]
    assert "QuantizeLinear" not in readers
    assert _float_layers(made) == []


def test_everything_kept_is_the_float_model():
    proto = conv_chain((3, 8, 8))
    made = optimized(proto, "clean,quantize{keep=(*)}").model
    assert [node.op for node in made.graph.nodes] == [node.op for node in optimized(proto, "clean").model.graph.nodes]


@pytest.mark.parametrize("pass_", ["quantize", "calibrate", "calibrate,scale-weights,insert-qdq"])
def test_a_pattern_that_matches_nothing(pass_):
    proto = conv_chain((3, 8, 8))
    name = _weights(to_proto(optimized(proto, "clean").model))[0]
    with pytest.raises(DeburrError) as caught:
        optimized(proto, f"clean,{pass_}{{keep=(*,{name}x)}}")
    assert str(caught.value).startswith(f"error[E203]: keep: nothing is called '{name}x', pass ")
    assert f"did you mean '{name}'" in str(caught.value)
