"""QuantizeLinear and DequantizeLinear mean what the ONNX reference evaluator makes of them, in every opset that changed them.

q = saturate(round_half_even(x / scale) + zero_point): in our arithmetic, in what `fold-constants` computes, and in what raising
the opset leaves.
"""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from models import conv_chain, samples
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from deburr.ir.onnx_reader import read
from deburr.ir.onnx_writer import to_proto
from deburr.ir.types import DType, QParams
from deburr.passes.quantize.arithmetic import dequantize, limits, quantize

from .quantizing import outputs, quantized
from .rewriting import run

OPSETS = (10, 13, 19, 21, 23)
SMALL = (DType.UINT8, DType.INT8)
ALL = (*SMALL, DType.UINT16, DType.INT16, DType.UINT4, DType.INT4)
CASES = [
    (opset, dtype, channels)
    for opset in OPSETS
    for dtype in (ALL if opset >= 21 else SMALL)
    for channels in ((None, 3) if opset >= 13 else (None,))  # scales along an axis came with opset 13
]


def tensor(name: str, array: np.ndarray, dtype: DType = DType.FLOAT) -> onnx.TensorProto:
    """A constant; `array` holds plain numbers, of 4 bits too."""
    if dtype is DType.FLOAT:
        return numpy_helper.from_array(np.asarray(array, np.float32), name)
    return helper.make_tensor(name, int(dtype), array.shape, np.asarray(array).ravel())


def single(op: str, given_type: DType, constants: list[onnx.TensorProto], opset: int, shape, result: DType, **attributes):
    """A model of one operator: x -> y."""
    node = helper.make_node(op, ["x", *(constant.name for constant in constants)], ["y"], op, **attributes)
    ends = [helper.make_tensor_value_info(name, int(dtype), shape) for name, dtype in (("x", given_type), ("y", result))]
    graph = helper.make_graph([node], "one", ends[:1], ends[1:], constants)
    ir_version = 10 if opset >= 21 else 8
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


def reference(proto: onnx.ModelProto, **inputs) -> np.ndarray:
    """What the ONNX reference evaluator gives. It has DequantizeLinear from opset 19 on, whose formula is that of 10 and 13."""
    [opset] = proto.opset_import
    if opset.version < 19 and any(node.op_type == "DequantizeLinear" for node in proto.graph.node):
        proto = onnx.ModelProto.FromString(proto.SerializeToString())
        proto.opset_import[0].version = 19
    return np.asarray(ReferenceEvaluator(proto).run(None, inputs)[0])


def plain(array: np.ndarray) -> np.ndarray:
    return np.asarray(array).astype(np.float64)


def hard_numbers(qparams: QParams) -> np.ndarray:
    """float32 [channels, n] or [n]: halfway between integers, at the limits and behind them, tiny, zero of both signs."""
    smallest, largest = limits(qparams.dtype)
    steps = [*np.arange(-4.5, 5), smallest - 0.5, largest + 0.5, smallest - 1.5, largest * 3.0, smallest * 3.0 - 7, 0.0, -0.0]
    numbers = np.multiply.outer(qparams.scale, np.array(steps, np.float32)).astype(np.float32)
    tiny = np.broadcast_to(np.array([1e-45, -1e-45], np.float32), (*qparams.scale.shape, 2))
    return np.concatenate([numbers, tiny], axis=-1)


def parameters(dtype: DType, channels: int | None, seed: int = 0) -> QParams:
    """Some scales, a power of two among them, so that halves are exact; some zero points."""
    random, shape = np.random.default_rng(seed), () if channels is None else (channels,)
    scale = np.asarray(random.uniform(0.01, 2, shape), np.float32)
    scale = np.asarray(0.25, np.float32) if channels is None else np.where(np.arange(channels) % 2, scale, np.float32(0.125))
    smallest, largest = limits(dtype)
    zero_point = np.asarray(random.integers(smallest, largest + 1, shape), np.int32)
    return QParams(np.asarray(scale, np.float32), zero_point, dtype, None if channels is None else 0)


def stored(scale: np.ndarray, zero_point: np.ndarray, dtype: DType) -> list[onnx.TensorProto]:
    return [tensor("s", scale), tensor("z", zero_point, dtype)]


def models(qparams: QParams, opset: int, shape) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """QuantizeLinear and DequantizeLinear with these parameters."""
    constants = stored(qparams.scale, qparams.zero_point, qparams.dtype)
    axis = {} if qparams.axis is None else {"axis": qparams.axis}
    return (
        single("QuantizeLinear", DType.FLOAT, constants, opset, shape, qparams.dtype, **axis),
        single("DequantizeLinear", qparams.dtype, constants, opset, shape, DType.FLOAT, **axis),
    )


@pytest.mark.parametrize(("opset", "dtype", "channels"), CASES)
def test_arithmetic_is_the_reference(opset, dtype, channels):
    qparams = parameters(dtype, channels)
    x = hard_numbers(qparams)
    quantizing, dequantizing = models(qparams, opset, x.shape)
    wanted = reference(quantizing, x=x)
    found = quantize(x, qparams)
    np.testing.assert_array_equal(plain(found), plain(wanted))
    np.testing.assert_array_equal(dequantize(found, qparams), reference(dequantizing, x=wanted))


@pytest.mark.parametrize("dtype", ALL)
def test_saturation_knows_no_end(dtype):
    """Where the reference evaluator's int32 would overflow, and at infinity: the formula, which ONNX Runtime keeps to."""
    qparams = parameters(dtype, None)
    x, (smallest, largest) = np.array([np.inf, -np.inf, 3e38, -3e38, 2.0**31, -(2.0**33)], np.float32), limits(dtype)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(plain(quantize(x, qparams)), [largest, smallest] * 3)
    if dtype.bits == 8:
        [theirs] = outputs(models(qparams, 21, x.shape)[0], {"x": x})
        np.testing.assert_array_equal(theirs, [largest, smallest] * 3)


@given(
    x=arrays(np.float32, 16, elements=st.floats(-(2.0**20), 2.0**20, width=32)),
    scale=st.floats(2.0**-10, 2.0**100, width=32),
    zero_point=st.integers(0, 255),
    opset=st.sampled_from(OPSETS),
)
@settings(max_examples=100, deadline=None)
def test_arithmetic_is_the_reference_for_any_number(x, scale, zero_point, opset):
    qparams = QParams(np.float32(scale).reshape(()), np.asarray(zero_point, np.int32), DType.UINT8)
    quantizing, dequantizing = models(qparams, opset, x.shape)
    wanted = reference(quantizing, x=x)
    np.testing.assert_array_equal(quantize(x, qparams), wanted)
    np.testing.assert_array_equal(dequantize(wanted, qparams), reference(dequantizing, x=wanted))


def constant_chain(w, parameters, opset: int, **attributes) -> onnx.ModelProto:
    """y = x + DequantizeLinear(QuantizeLinear(w)), what a training tool leaves of a weight.

    :param parameters: scale and zero point.
    """
    nodes = [
        helper.make_node("QuantizeLinear", ["w", "s", "z"], ["q"], **attributes),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], **attributes),
        helper.make_node("Add", ["x", "d"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, w.shape) for name in ("x", "y")]
    constants = [tensor("w", w), *parameters]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], constants)
    ir_version = 10 if opset >= 21 else 8
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


@pytest.mark.parametrize(("opset", "dtype", "channels"), CASES)
def test_folding_a_quantized_constant_keeps_its_integers(opset, dtype, channels):
    """QuantizeLinear of a constant is computed, but for 4 bits; DequantizeLinear stays, so that a weight remains integers."""
    qparams = parameters(dtype, channels)
    w = hard_numbers(qparams)
    constants = stored(qparams.scale, qparams.zero_point, dtype)
    before = constant_chain(w, constants, opset, **({} if channels is None else {"axis": 0}))
    changed = read(before)
    remarks = run(changed, "clean")
    assert [node.op for node in changed.graph.nodes] == ["QuantizeLinear"] * bool(remarks) + ["DequantizeLinear", "Add"]
    assert bool(remarks) == (dtype.bits == 4)
    x = np.zeros(w.shape, np.float32)
    np.testing.assert_array_equal(reference(to_proto(changed), x=x), reference(before, x=x))


@pytest.mark.parametrize("dtype", [DType.INT4, DType.UINT4, DType.INT8, DType.INT16])
@pytest.mark.parametrize("opset", [21, 23])
def test_blocks_keep_their_meaning(opset, dtype):
    """A scale for every two rows of a column (opset 21)."""
    random = np.random.default_rng(0)
    smallest, largest = limits(dtype)
    scale = random.uniform(0.1, 1, (2, 3)).astype(np.float32)
    constants = stored(scale, random.integers(smallest, largest + 1, (2, 3)), dtype)
    w = (random.standard_normal((4, 3)) * 5).astype(np.float32)
    before = constant_chain(w, constants, opset, axis=0, block_size=2)
    changed = read(before)
    run(changed, "clean")
    x = np.zeros(w.shape, np.float32)
    np.testing.assert_array_equal(reference(to_proto(changed), x=x), reference(before, x=x))


@pytest.mark.parametrize("saturate", [0, 1])
@pytest.mark.parametrize("kind", ["FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ"])
@pytest.mark.parametrize("opset", [19, 23])
def test_float8_passes_unharmed(opset, kind, saturate):
    """What does not saturate becomes NaN or infinite (opset 19); the quantizer leaves the model alone."""
    dtype = DType[kind]
    constants = [tensor("s", np.asarray(0.5)), tensor("z", np.asarray(0.0), dtype)]
    x = np.array([0.0, 0.3, -7.0, 1e6, -1e6], np.float32)
    before = single("QuantizeLinear", DType.FLOAT, constants, opset, x.shape, dtype, saturate=saturate)
    changed = read(before)
    run(changed, "clean")
    [node] = to_proto(changed).graph.node
    assert {attribute.name: attribute.i for attribute in node.attribute}.get("saturate", 1) == saturate
    wanted = plain(reference(before, x=x))
    assert np.isfinite(wanted).all() == bool(saturate)
    np.testing.assert_array_equal(plain(reference(to_proto(changed), x=x)), wanted)


@pytest.mark.parametrize(
    ("before", "after", "channels"),
    [(10, 13, None), (10, 23, None), *((*step, count) for step in ((13, 19), (19, 21), (21, 23)) for count in (None, 3))],
)
def test_raising_the_opset_keeps_what_quantizers_mean(before, after, channels):
    qparams = parameters(DType.UINT8, channels)
    x = hard_numbers(qparams)
    quantizing, dequantizing = models(qparams, before, x.shape)
    integers = reference(quantizing, x=x)
    for proto, data in ((quantizing, x), (dequantizing, integers)):
        changed = read(proto)
        run(changed, f"raise-opset{{version={after}}}")
        assert changed.opset == after
        np.testing.assert_array_equal(reference(to_proto(changed), x=data), reference(proto, x=data))


@pytest.mark.parametrize(
    ("opset", "pipeline", "wanted"),
    [
        (10, "quantize", 13),
        (12, "quantize", 13),
        (19, "quantize", 19),
        (12, "quantize{bits=4}", 21),
        (23, "quantize{bits=4}", 23),
    ],
)
def test_the_quantizer_raises_the_opset_as_far_as_the_file_needs(opset, pipeline, wanted):
    """And only the rounding tells the result from the float model, which the raised one still is."""
    proto = conv_chain(opset=opset)
    result = quantized(proto, f"clean,{pipeline}")
    assert result.opset_import[0].version == wanted
    raised = read(proto)
    run(raised, f"raise-opset{{version={wanted}}}")
    data = {"x": samples(proto, 2)["x"]}
    np.testing.assert_array_equal(outputs(to_proto(raised), data), outputs(proto, data))
