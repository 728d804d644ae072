"""Weights of 4 bits: half the bytes of int8, in a file that ONNX Runtime runs."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from models import conv_chain, perceptron

from deburr.ir.errors import DeburrError
from deburr.ir.onnx_writer import to_proto

from .quantizing import mobilenet, optimized, quality, quantized

FOUR = "clean,calibrate,scale-weights{bits=4},round-weights,insert-qdq"


def weights(proto: onnx.ModelProto) -> dict[int, int]:
    """Elements by element type, of the integers with more than one axis."""
    found: dict[int, int] = {}
    for tensor in proto.graph.initializer:
        if len(tensor.dims) > 1:
            found[tensor.data_type] = found.get(tensor.data_type, 0) + int(np.prod(tensor.dims))
    return found


@pytest.mark.parametrize("proto", [conv_chain((3, 16, 24)), perceptron()], ids=["convolutions", "matrices"])
def test_the_file_holds_4_bit_integers(proto):
    small, large = quantized(proto, FOUR.replace("bits=4", "bits=4,smallest=1")), quantized(proto)
    assert set(weights(small)) == {onnx.TensorProto.INT4}
    assert weights(small)[onnx.TensorProto.INT4] == weights(large)[onnx.TensorProto.INT8]
    assert {item.version for item in small.opset_import if item.domain == ""} == {21}
    assert quality(proto, small) > 12  # decibels; 15 steps for a weight


def test_layers_with_few_weights_for_each_output_keep_8_bits():
    counts = weights(quantized(mobilenet(), FOUR))
    assert set(counts) == {onnx.TensorProto.INT4, onnx.TensorProto.INT8}
    depthwise = sum(9 * channels for channels in (32, 32, 64))
    stem_and_narrow = 8 * 3 * 9 + 8 * 32 * 2 + 64 * 16 * 2  # 27, 8 and 16 weights for each output
    assert counts[onnx.TensorProto.INT8] <= depthwise + stem_and_narrow


def test_rounding_with_compensation_beats_the_nearest_by_far():
    proto = mobilenet()
    nearest = quality(proto, quantized(proto, FOUR.replace("round-weights,", "correct-bias,")))
    assert quality(proto, quantized(proto, FOUR)) > nearest + 1


def test_the_scale_loses_least_in_the_mean_square():
    """A weight far out would waste most of 15 steps."""
    proto = perceptron()
    context = optimized(proto, "clean,calibrate,scale-weights{bits=4,smallest=1}")
    plain = optimized(proto, "clean,calibrate,scale-weights")
    for four, eight in zip(context.model.graph.constants, plain.model.graph.constants, strict=True):
        if four.qparams is not None:
            assert (four.qparams.scale * 7 <= eight.qparams.scale * 127 * (1 + 1e-6)).all()
    assert to_proto(context.model).ByteSize() == to_proto(plain.model).ByteSize()


def test_other_widths_are_refused():
    with pytest.raises(DeburrError) as caught:
        optimized(perceptron(), "scale-weights{bits=9}")
    assert str(caught.value) == "error[E203]: weights of 9 bits, scale-weights; give 2 to 8"
