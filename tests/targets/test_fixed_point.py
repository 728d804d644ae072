"""Residual sums in integers against ONNX Runtime's QLinearAdd, over all 65,536 pairs of u8."""

import numpy as np
import onnxruntime
from hypothesis import example, given, settings
from hypothesis import strategies as st
from kernel_reference import fixed_point_add
from onnx import TensorProto, helper, numpy_helper

from deburr.targets.features import cpu_flags
from deburr.targets.lower.borders import Scale
from deburr.targets.lower.fixed_point import fit, of_table, reference

LEFT, RIGHT = np.divmod(np.arange(65_536), 256)

scales = st.builds(Scale, st.floats(2**-12, 2**-2, width=32), st.integers(0, 255))


def onnx_runtime(a: Scale, b: Scale, out: Scale) -> np.ndarray:
    """The kernel itself, com.microsoft::QLinearAdd."""
    names = [f"{part} {kind}" for part in "abc" for kind in ("scale", "zero")]
    numbers = [number for scale in (a, b, out) for number in (np.float32(scale.scale), np.uint8(scale.zero_point))]
    inputs = ["a", *names[:2], "b", *names[2:4], *names[4:]]
    graph = helper.make_graph(
        [helper.make_node("QLinearAdd", inputs, ["c"], domain="com.microsoft")],
        "sum",
        [helper.make_tensor_value_info(name, TensorProto.UINT8, [65_536]) for name in "ab"],
        [helper.make_tensor_value_info("c", TensorProto.UINT8, [65_536])],
        [numpy_helper.from_array(np.asarray(number), name) for name, number in zip(names, numbers, strict=True)],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"a": LEFT.astype(np.uint8), "b": RIGHT.astype(np.uint8)})[0].astype(np.int64)


@settings(max_examples=40)
@given(scales, scales, scales)
@example(Scale(0.25, 0), Scale(0.125, 0), Scale(float(np.float32(0.15)), 0))
def test_sums_are_those_of_onnx_runtime(a, b, out):
    ours, theirs = fixed_point_add(LEFT, RIGHT, fit(a, b, out)), onnx_runtime(a, b, out)
    assert np.abs(ours - theirs).max() <= 1
    # Ties are apart, exact ones and what float32 takes for one: where scales are nearly small multiples of each other there are
    # many, and no shift rounds half to even.
    real = ((LEFT - a.zero_point) * a.scale + (RIGHT - b.zero_point) * b.scale) / out.scale
    tie = np.abs(np.abs(real - np.floor(real)) - 0.5) < 2e-5
    assert np.count_nonzero((ours != theirs) & ~tie) <= 16


@settings(max_examples=40)
@given(scales, scales, scales)
def test_the_reference_is_the_kernel(a, b, out):
    off = np.abs(reference(LEFT, RIGHT, a, b, out) - onnx_runtime(a, b, out))
    assert off.max() <= 1
    if "fma" in cpu_flags():  # without it, the kernel rounds once more and decides some ties otherwise
        assert not off.any()


def test_a_few_units_decide_near_ties():
    """Scales of a real network, where plain rounding of the factors gets five sums wrong."""
    a, b, out = Scale(0.01657015085220337, 144), Scale(0.009418570436537266, 0), Scale(0.013393966481089592, 0)
    assert np.array_equal(fixed_point_add(LEFT, RIGHT, fit(a, b, out)), onnx_runtime(a, b, out))


@settings(max_examples=100)
@given(scales, scales, st.integers(0, 100), st.integers(150, 255))
@example(Scale(0.02, 128), Scale(0.021, 120), 0, 255)
def test_a_change_of_scale_gives_the_table_or_says_so(a, out, low, high):
    levels = np.arange(256)
    real = (levels - a.zero_point).astype(np.float32) * np.float32(a.scale)
    table = np.clip(np.rint(real / np.float32(out.scale)) + out.zero_point, low, high).astype(np.uint8)
    how = of_table(table, a.scale / out.scale, (a.zero_point, out.zero_point))
    if how is not None:
        np.testing.assert_array_equal(fixed_point_add(levels, levels, how), table)


def test_scales_of_a_real_concat_have_a_factor():
    levels = np.arange(256)
    a, out = Scale(0.01657015085220337, 144), Scale(0.0213393966481089592, 120)
    table = np.clip(np.rint((levels - 144).astype(np.float32) * np.float32(a.scale) / np.float32(out.scale)) + 120, 0, 255)
    assert of_table(table.astype(np.uint8), a.scale / out.scale, (144, 120)) is not None
