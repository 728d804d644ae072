import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from deburr.ir.errors import DeburrError
from deburr.ir.evaluate import Evaluator
from deburr.ir.onnx_reader import read

from .rewriting import assert_same, check, inputs, run, unchanged

PASS = "explicit-padding"


def test_same_upper_puts_the_odd_element_at_the_end():
    check(
        PASS,
        "input %x: float[1, 1, 5, 6]\n %y: float[1, 1, 3, 3] = MaxPool(%x)"
        ' {auto_pad="SAME_UPPER", kernel_shape=[2, 3], strides=[2, 2]}\n return %y',
        "input %x: float[1, 1, 5, 6]\n %y: float[1, 1, 3, 3] = MaxPool(%x)"
        " {kernel_shape=[2, 3], strides=[2, 2], pads=[0, 0, 1, 1]}\n return %y",
    )


def test_same_lower_puts_it_at_the_begin():
    check(
        PASS,
        "input %x: float[1, 1, 5, 6]\n %y: float[1, 1, 3, 3] = MaxPool(%x)"
        ' {auto_pad="SAME_LOWER", kernel_shape=[2, 3], strides=[2, 2]}\n return %y',
        "input %x: float[1, 1, 5, 6]\n %y: float[1, 1, 3, 3] = MaxPool(%x)"
        " {kernel_shape=[2, 3], strides=[2, 2], pads=[1, 1, 0, 0]}\n return %y",
    )


def test_valid_pads_nothing():
    check(
        PASS,
        "input %x: float[1, 1, h, w]\n const %k = float[1, 1, 1, 1] [2.0]\n"
        ' %y: float[1, 1, h, w] = Conv(%x, %k) {auto_pad="VALID"}\n return %y',
        "input %x: float[1, 1, h, w]\n const %k = float[1, 1, 1, 1] [2.0]\n"
        " %y: float[1, 1, h, w] = Conv(%x, %k) {pads=[0, 0, 0, 0]}\n return %y",
    )


def test_stride_1_needs_no_sizes():
    check(
        PASS,
        "input %x: float[1, 1, h, w]\n const %k = float[1, 1, 2, 3] [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]\n"
        ' %y: float[1, 1, h, w] = Conv(%x, %k) {auto_pad="SAME_UPPER"}\n return %y',
        "input %x: float[1, 1, h, w]\n const %k = float[1, 1, 2, 3] [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]\n"
        " %y: float[1, 1, h, w] = Conv(%x, %k) {pads=[0, 1, 1, 1]}\n return %y",
    )


def test_strides_need_sizes():
    unchanged(
        PASS,
        "input %x: float[1, 1, h, w]\n const %k = float[1, 1, 3, 3] [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]\n"
        ' %y: float[1, 1, ?, ?] = Conv(%x, %k) {auto_pad="SAME_UPPER", strides=[2, 2]}\n return %y',
        "explicit-padding: Conv -> y: the sizes of its input are not known",
    )


def test_not_set_is_left_alone():
    unchanged(
        PASS,
        "input %x: float[1, 1, 4, 4]\n %y: float[1, 1, 3, 3] = MaxPool(%x)"
        ' {auto_pad="NOTSET", kernel_shape=[2, 2]}\n return %y',
    )


def test_ceil_mode_where_a_window_hangs_over():
    unchanged(
        PASS,
        "input %x: float[1, 1, 4, 4]\n %y: float[1, 1, ?, ?] = MaxPool(%x)"
        ' {auto_pad="VALID", ceil_mode=1, kernel_shape=[3, 3], strides=[2, 2]}\n return %y',
        "explicit-padding: MaxPool -> y: "
        "with ceil_mode, the specification and ONNX Runtime disagree about the size of its output",
    )


def test_a_dilated_window():
    """ONNX Runtime pads as if the window were not dilated."""
    unchanged(
        PASS,
        "input %x: float[1, 1, 5, 5]\n %y: float[1, 1, 5, 5] = MaxPool(%x)"
        ' {auto_pad="SAME_UPPER", dilations=[2, 1], kernel_shape=[2, 2]}\n return %y',
        "explicit-padding: MaxPool -> y: of a dilated window, the specification and ONNX Runtime disagree about the padding",
    )


@pytest.mark.parametrize("op", ["AveragePool", "LpPool"])
def test_a_stride_that_skips_elements(op):
    """ONNX Runtime's windows start at element 1 here, the specification's at element 0."""
    unchanged(
        PASS,
        f"input %x: float[1, 1, 9, 9]\n %y: float[1, 1, 9, 3] = {op}(%x)"
        ' {auto_pad="SAME_UPPER", kernel_shape=[1, 1], strides=[1, 3]}\n return %y',
        f"explicit-padding: {op} -> y: "
        "where its stride skips elements, the specification and ONNX Runtime disagree about the first window",
    )


def test_output_shape_decides():
    unchanged(
        PASS,
        "input %x: float[1, 1, 3, 3]\n const %k = float[1, 1, 1, 1] [2.0]\n"
        ' %y: float[1, 1, 6, 6] = ConvTranspose(%x, %k) {auto_pad="SAME_UPPER", output_shape=[6, 6], strides=[2, 2]}\n'
        " return %y",
        "explicit-padding: ConvTranspose -> y: its output_shape decides about the padding",
    )


def _one_operator(op: str, size: int, channels: int, weights: list[np.ndarray], attributes: dict) -> onnx.ModelProto:
    named = [f"w{index}" for index in range(len(weights))]
    graph = helper.make_graph(
        [helper.make_node(op, ["x", *named], ["y"], **attributes)],
        "one",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, channels, size, size + 1])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [None] * 4)],
        [numpy_helper.from_array(weight, name) for name, weight in zip(named, weights, strict=True)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


@st.composite
def operators(draw):
    op = draw(st.sampled_from(["Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool"]))
    pair = st.tuples(st.integers(1, 3), st.integers(1, 3)).map(list)
    kernel, strides, dilations = draw(pair), draw(pair), draw(pair)
    attributes = {"auto_pad": draw(st.sampled_from(["SAME_UPPER", "SAME_LOWER", "VALID"])), "strides": strides}
    weights = []
    if op in ("Conv", "ConvTranspose"):
        random = np.random.default_rng(0)
        weights = [random.standard_normal((2, 2, *kernel)).astype(np.float32)]
        attributes["dilations"] = dilations
    else:
        attributes["kernel_shape"] = kernel
        if op == "MaxPool":
            attributes["dilations"] = dilations
        if op == "AveragePool":
            attributes["count_include_pad"] = draw(st.integers(0, 1))
        attributes["ceil_mode"] = draw(st.integers(0, 1))
    return _one_operator(op, draw(st.integers(7, 10)), 2, weights, attributes)


@settings(max_examples=80, deadline=None)
@given(operators())
def test_the_same_numbers(proto):
    """Whatever is rewritten computes in ONNX Runtime what it computed before."""
    before = read(proto)
    try:
        Evaluator(before).run(inputs(before))
    except DeburrError:  # ONNX Runtime refuses a few of these itself
        return
    changed = read(proto)
    run(changed, PASS)
    assert_same(before, changed)
