"""Sensitivity finds the layer that costs most, and mixed precision spends its bytes there."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from models import Builder, perceptron

from deburr.ir.errors import DeburrError
from deburr.passes.quantize.sensitivity import sensitivities

from .quantizing import mobilenet, optimized, quality, quantized

NOTED = "clean,calibrate,scale-weights"


def one_hard_layer() -> onnx.ModelProto:
    """Three Gemms; in each row of the second, one weight is 50 times as large as the others."""
    builder, x = Builder(), "x"
    for index in range(3):
        x = builder.gemm(x, 32, 32, "y" if index == 2 else "")
        x = builder.node("Relu", [x]) if index < 2 else x
    (index,) = (i for i, tensor in enumerate(builder.initializers) if tensor.name == "w3")
    array = onnx.numpy_helper.to_array(builder.initializers[index]).copy()
    array[:, 5] *= 50
    builder.initializers[index] = onnx.numpy_helper.from_array(array, "w3")
    return builder.model({"x": ["n", 32]}, {"y": ["n", 32]})


def bits(context) -> list[int | None]:
    weights = [node.input(1).qparams for node in context.model.graph.nodes if node.op in ("Gemm", "Conv")]
    return [None if scheme is None else scheme.dtype.bits for scheme in weights]


def test_sensitivity_agrees_with_rounding_the_layer_alone():
    """A model of one layer: what the analysis says is what the quantized model loses."""
    proto = perceptron((32, 16))
    context = optimized(proto, NOTED)
    (found,) = sensitivities(context.model.graph, context, samples=40)
    assert found.bits == 8
    assert found.loss is None
    assert found.sqnr_db == pytest.approx(quality(proto, quantized(proto, f"{NOTED},insert-qdq")), abs=0.5)


def test_noises_of_layers_nearly_add_up():
    proto = mobilenet()
    context = optimized(proto, NOTED)
    found = sensitivities(context.model.graph, context)
    assert len(found) == len({one.node for one in found}) == 12
    assert [one.noise for one in found] == sorted((one.noise for one in found), reverse=True)
    together = quality(proto, quantized(proto, f"{NOTED},insert-qdq"))
    assert -10 * np.log10(sum(one.noise for one in found)) == pytest.approx(together, abs=4)


def test_labels_give_points_lost():
    proto = perceptron((16, 8))
    context = optimized(proto, NOTED)
    labels = np.zeros(len(context.data), np.int64)
    context.data = type(context.data)(context.data.inputs, labels)
    (found,) = sensitivities(context.model.graph, context)
    assert found.loss is not None
    assert -1 <= found.loss <= 1


@pytest.mark.parametrize(("budget", "expected"), [(0.5, [4, 4, 4]), (0.67, [4, 8, 4]), (1.0, [8, 8, 8])])
def test_the_sensitive_layer_gets_the_bytes(budget, expected):
    context = optimized(one_hard_layer(), f"{NOTED},mixed-precision{{budget={budget}}}")
    assert bits(context) == expected


def test_float_layers_and_kept_layers():
    context = optimized(one_hard_layer(), f"{NOTED},mixed-precision{{budget=2,widths=(8,float)}}")
    assert sorted(bits(context), key=str) == [8, 8, None]
    context = optimized(one_hard_layer(), f"{NOTED},mixed-precision{{budget=0.5,keep=(w3)}}")
    assert bits(context) == [4, 8, 4]
    assert [remark.reason for remark in context.remarks if remark.where == "budget"] == [
        "0.5 of the bytes of int8 is less than the smallest widths take"
    ]


def test_mixed_beats_4_bits_everywhere():
    proto = mobilenet()
    four, mixed = (
        quality(proto, quantized(proto, f"{NOTED},mixed-precision{{budget={budget}}},round-weights,insert-qdq"))
        for budget in (0.5, 0.7)
    )
    assert mixed > four + 1  # decibels


def test_options_out_of_range():
    with pytest.raises(DeburrError) as caught:
        optimized(perceptron(), "mixed-precision{widths=(8,4)}")
    assert str(caught.value) == (
        'error[E203]: budget, widths or samples is out of range, pass mixed-precision{widths=("8","4")}; '
        "widths are some of (4,8,float) in this order, budget and samples are above 0"
    )
