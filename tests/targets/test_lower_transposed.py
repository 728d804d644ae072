"""ConvTranspose against ONNX Runtime: every stride, padding and group as a convolution of its phases."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from models import Builder, samples
from program import execute, lowered, ops, quantized
from test_lower_integer import TARGETS, worst_step
from test_lower_matmul import close

QUICK = settings(max_examples=10, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def upsampling(kernel, strides, pads=(0, 0, 0, 0), extra=(0, 0), channels=(5, 16), group=1, size=(6, 5)):
    """Conv, ConvTranspose, Relu, Conv."""
    builder = Builder()
    inputs, outputs = channels
    x = builder.conv("x", 3, inputs)
    weight = builder.weight(inputs, outputs // group, *kernel, scale=(2 / inputs) ** 0.5)
    attributes = {"strides": list(strides), "pads": list(pads), "output_padding": list(extra), "group": group}
    x = builder.node("ConvTranspose", [x, weight, builder.weight(outputs, scale=0.5)], **attributes)
    builder.conv(builder.node("Relu", [x]), outputs, 4, 1, "y")
    height, width = (
        (size[axis] - 1) * strides[axis] + kernel[axis] + extra[axis] - pads[axis] - pads[2 + axis] for axis in (0, 1)
    )
    return builder.model({"x": ["batch", 3, *size]}, {"y": ["batch", 4, height, width]})


CASES = {
    "2 by 2": upsampling((2, 2), (2, 2)),
    "4 by 4": upsampling((4, 4), (2, 2), (1, 1, 1, 1)),
    "an odd kernel": upsampling((3, 3), (2, 2), (1, 1, 1, 1), (1, 1), channels=(5, 7)),
    "groups": upsampling((3, 2), (3, 2), channels=(6, 8), group=2),
    "depthwise": upsampling((4, 4), (2, 2), (1, 1, 1, 1), channels=(6, 6), group=6),
}


@pytest.mark.parametrize("name", CASES)
def test_integers_are_within_one_of_onnx_runtime(name):
    proto = quantized(CASES[name], per_channel=name != "groups")  # that of ONNX Runtime cannot do both
    _, model, remarks = lowered(proto)
    assert "Shuffle" in ops(model)
    assert not {"ConvTranspose", "ChangeLayout", "Relu"} & set(ops(model))
    assert not [remark for remark in remarks if remark.startswith("lower:")]
    worst, count = worst_step(proto)
    assert worst <= 1
    assert count >= 4


@QUICK
@given(data=st.data())
def test_random_windows_in_float(data):
    kernel, strides = ((data.draw(st.integers(1, 5)), data.draw(st.integers(1, 5))) for _ in range(2))
    pads = tuple(data.draw(st.integers(0, size - 1)) for size in (*kernel, *kernel))
    extra = tuple(data.draw(st.integers(0, stride - 1)) for stride in strides)
    size = (data.draw(st.integers(3, 9)), data.draw(st.integers(3, 9)))
    results = ((size[i] - 1) * strides[i] + kernel[i] + extra[i] - pads[i] - pads[2 + i] for i in (0, 1))
    if min(results) > 0:
        close(upsampling(kernel, strides, pads, extra, size=size))


def test_every_target_gives_the_same_bits():
    proto = quantized(CASES["an odd kernel"])
    data = samples(proto, 1)
    results = [execute(lowered(proto, target)[1], data, target)["y"] for target in TARGETS]
    assert np.ptp(results[0]) > 0
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])
