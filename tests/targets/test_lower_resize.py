"""Resize against ONNX Runtime: every way of finding positions, float and integers, in blocks without changes of layout."""

import numpy as np
import pytest
from models import Builder, samples
from program import execute, lowered, ops, quantized
from test_lower_integer import TARGETS, worst_step
from test_lower_matmul import close


def between_convolutions(size=(5, 6), result=(10, 12), channels=16, *, by_scales=False, **attributes):
    builder = Builder()
    x = builder.conv("x", 3, channels)
    if by_scales:
        scales = builder.constant(np.float32([1, 1, result[0] / size[0], result[1] / size[1]]))
        x = builder.node("Resize", [x, "", scales], **attributes)
    else:
        x = builder.node("Resize", [x, "", "", builder.constant(np.array([1, channels, *result]))], **attributes)
    builder.conv(x, channels, 4, 1, "y")
    return builder.model({"x": [1, 3, *size]}, {"y": [1, 4, *result]})


TRANSFORMS = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("result", [(10, 12), (7, 3), (1, 17)])
def test_between_pixels_in_float(transform, result):
    proto = between_convolutions(result=result, channels=5, mode="linear", coordinate_transformation_mode=transform)
    assert ops(close(proto)).count("Resize") == 1


@pytest.mark.parametrize(
    ("transform", "rounding"),
    [
        ("half_pixel", "round_prefer_floor"),
        ("asymmetric", "floor"),
        ("align_corners", "round_prefer_ceil"),
        ("half_pixel", "ceil"),
    ],
)
@pytest.mark.parametrize("result", [(10, 12), (7, 3)])
def test_nearest_in_float(transform, rounding, result):
    how = {"mode": "nearest", "coordinate_transformation_mode": transform, "nearest_mode": rounding}
    model = close(between_convolutions(result=result, by_scales=result == (10, 12), **how))
    assert ops(model) == ["ChangeLayout", "Conv2d", "Resize", "Conv2d", "ChangeLayout"]


@pytest.mark.parametrize(("mode", "result"), [("nearest", (10, 12)), ("linear", (10, 12)), ("linear", (7, 8))])
def test_integers_are_within_one_of_onnx_runtime(mode, result):
    proto = quantized(between_convolutions(result=result, mode=mode))
    _, model, remarks = lowered(proto)
    assert ops(model) == ["Quantize", "Conv2d", "Resize", "Conv2d", "Dequantize"]
    assert not [remark for remark in remarks if remark.startswith("lower:")]
    worst, count = worst_step(proto)
    # Between pixels, sums end on ties, which float32 decides by its own errors: one step there, another behind the convolution.
    assert worst <= (1 if mode == "nearest" else 2)
    assert count >= 3


def test_every_target_gives_the_same_bits():
    proto = quantized(between_convolutions(result=(7, 8), channels=7, mode="linear"))
    data = samples(proto, 1)
    results = [execute(lowered(proto, target)[1], data, target)["y"] for target in TARGETS]
    assert np.ptp(results[0]) > 0
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


def test_what_has_no_template_says_so():
    _, _, remarks = lowered(between_convolutions(mode="cubic"))
    assert any("this way of resizing has no template: compiled by TVM's own converter" in remark for remark in remarks)
