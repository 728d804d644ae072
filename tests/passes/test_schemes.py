"""Integers of other forms than u8 activations and s8 weights per channel: blocks, affine weights, 16 bits, odd widths."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import Builder, concat_branches, perceptron, samples
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from deburr.ir.errors import DeburrError
from deburr.ir.types import DType, QParams
from deburr.passes.quantize.arithmetic import affine, dequantize, limits, quantize

from .pruning import analyse
from .quantizing import mobilenet, ops, optimized, outputs, quality, quantized, sqnr

NEAREST = "clean,calibrate,scale-weights{{{}}},insert-qdq"


def wide() -> onnx.ModelProto:
    """Convolutions with input channels of very different size, so that a scale for all of them fits few, and a Gemm."""
    builder = Builder()
    sizes = np.geomspace(0.001, 1, 64).astype(np.float32)
    x = builder.node("Mul", ["x", builder.constant(1 / sizes.reshape(64, 1, 1))])
    weights = builder.random.standard_normal((32, 64, 3, 3)).astype(np.float32) * sizes.reshape(64, 1, 1) / 24
    x = builder.node("Conv", [x, builder.constant(weights), builder.weight(32)], pads=[1] * 4)
    x = builder.node("Relu", [builder.conv(x, 32, 32, group=32)])
    builder.gemm(builder.node("Flatten", [builder.node("GlobalAveragePool", [x])]), 32, 8, "y")
    return builder.model({"x": ["n", 64, 6, 6]}, {"y": ["n", 8]})


def _matrices() -> onnx.ModelProto:
    builder = Builder()
    builder.gemm(builder.node("MatMul", ["x", builder.weight(32, 8)]), 8, 4, "y")
    return builder.model({"x": ["n", 32]}, {"y": ["n", 4]})


def block_sizes(proto: onnx.ModelProto) -> dict[str, list[int]]:
    """Of the weights of each kind of layer; 0 where there are no blocks."""
    producer = {node.output[0]: node for node in proto.graph.node}
    found: dict[str, list[int]] = {}
    for node in proto.graph.node:
        if node.op_type in ("Conv", "Gemm", "MatMul"):
            attributes = {item.name: helper.get_attribute_value(item) for item in producer[node.input[1]].attribute}
            found.setdefault(node.op_type, []).append(attributes.get("block_size", 0))
    return found


def reference(x: np.ndarray, qparams: QParams) -> np.ndarray:
    """What the ONNX reference evaluator makes of Q and DQ."""
    given = {"axis": qparams.axis} if qparams.axis is not None else {}
    given |= {"block_size": qparams.block_size} if qparams.block_size is not None else {}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], **given),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], **given),
    ]
    constants = [
        numpy_helper.from_array(qparams.scale, "s"),
        numpy_helper.from_array(qparams.zero_point.astype(qparams.dtype.numpy), "z"),
    ]
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, x.shape) for name in "xy"]
    graph = helper.make_graph(nodes, "g", infos[:1], infos[1:], constants)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return ReferenceEvaluator(proto).run(None, {"x": x})[0]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(1, 9), min_size=1, max_size=4),
    st.data(),
    st.sampled_from([DType.INT4, DType.UINT4, DType.INT8, DType.UINT8]),
)
def test_blocks_are_those_of_the_onnx_reference(seed, shape, data, dtype):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    size = shape[axis]
    block_size = data.draw(st.integers(1, size))
    random = np.random.default_rng(seed)
    scales = list(shape)
    scales[axis] = -(-size // block_size)
    zero_point = random.integers(*limits(dtype), scales, endpoint=True).astype(np.int32)
    qparams = QParams(random.uniform(0.01, 1, scales).astype(np.float32), zero_point, dtype, axis, block_size)
    x = random.standard_normal(shape).astype(np.float32)
    assert np.array_equal(dequantize(quantize(x, qparams), qparams), reference(x, qparams))


def test_the_last_block_may_be_shorter():
    qparams = QParams(np.float32([[1], [10]]), np.zeros((2, 1), np.int32), DType.INT8, axis=0, block_size=3)
    assert dequantize(np.ones((5, 1), np.int8), qparams).ravel().tolist() == [1, 1, 1, 10, 10]


class TestBlocks:
    def test_they_lie_along_the_inputs_of_layers_that_have_more_than_one(self):
        result = quantized(wide(), NEAREST.format("block=16"))
        assert block_sizes(result) == {"Conv": [16, 0], "Gemm": [16]}
        shapes = {tuple(tensor.dims) for tensor in result.graph.initializer if tensor.data_type == TensorProto.FLOAT}
        assert {(32, 4, 3, 3), (32,), (8, 2)} <= shapes  # the scales: blocks of Conv, channels of the depthwise one, Gemm

    def test_they_lose_less_where_weights_differ_in_size(self):
        proto = wide()
        channels, blocks = (
            quality(proto, quantized(proto, NEAREST.format(options))) for options in ("bits=4", "bits=4,block=16")
        )
        assert blocks > channels + 2

    @pytest.mark.parametrize("make", [wide, mobilenet, concat_branches, perceptron])
    def test_onnx_runtime_computes_the_same_with_its_optimizations(self, make):
        proto = make()
        result, data = quantized(proto, NEAREST.format("block=8")), samples(proto, 16)
        plain, fast = (outputs(result, data, optimize=optimize)[0] for optimize in (False, True))
        assert sqnr(plain, fast) > 40  # what is rounded the other way, here and there
        assert sqnr(outputs(proto, data)[0], fast) > 18

    @pytest.mark.parametrize("options", ["block=8", "bits=4,block=8", "bits=4,block=8,scheme=affine"])
    def test_onnx_runtime_does_not_fuse_what_knows_no_blocks(self, options):
        """Its optimizations take a Conv without bias, and a MatMul with float output, for integer operators per channel."""
        builder = Builder()
        x = builder.node("Relu", [builder.node("Conv", ["x", builder.weight(16, 24, 3, 3, scale=0.1)])])
        x = builder.node("Conv", [x, builder.weight(8, 16, 3, 3, scale=0.1)])
        x = builder.node("MatMul", [builder.node("Flatten", [x]), builder.weight(32, 16, scale=0.1)])
        builder.node("MatMul", [x, builder.weight(16, 4, scale=0.1)], "y")
        proto = builder.model({"x": ["n", 24, 6, 6]}, {"y": ["n", 4]})
        result = quantized(proto, NEAREST.format(f"{options},smallest=1"))
        for count in (2, 4, 5):  # 2 and 4 are numbers of blocks: there it computes other numbers and does not fail
            data = samples(proto, count)
            plain, fast = (outputs(result, data, optimize=optimize)[0] for optimize in (False, True))
            assert sqnr(plain, fast) > 30

    def test_what_has_no_blocks_says_why(self):
        context = optimized(_matrices(), NEAREST.format("block=8"))
        found = [remark.reason for remark in context.remarks if "not in blocks" in remark.reason]
        assert found == [
            "its scales are not in blocks: ONNX Runtime mistakes blocks of 8 bits in a MatMul for channels",
            "its scales are not in blocks: a block holds all of its 8 inputs",
        ]

    def test_second_order_rounding_beats_the_nearest(self):
        proto = wide()
        nearest = quality(proto, quantized(proto, NEAREST.format("bits=4,block=16")))
        rounded = quality(proto, quantized(proto, "clean,quantize{bits=4,block=16}"))
        assert rounded > nearest + 1

    def test_mixed_precision_keeps_them(self):
        pipeline = "clean,calibrate,scale-weights{bits=4,block=16,smallest=1},mixed-precision{budget=0.6},insert-qdq"
        result = quantized(wide(), pipeline)
        assert block_sizes(result) == {"Conv": [16, 0], "Gemm": [16]}
        types = {tensor.data_type for tensor in result.graph.initializer if len(tensor.dims) > 1}
        assert {TensorProto.INT4, TensorProto.INT8} <= types

    def test_the_bias_stays_float_and_says_so(self):
        context = optimized(wide(), NEAREST.format("block=16"))
        reasons = [str(remark) for remark in context.remarks if "bias stays float" in remark.reason]
        assert len(reasons) == 2

    def test_pruning_keeps_the_inputs_of_blocks(self):
        builder = Builder()
        builder.conv(builder.node("Relu", [builder.conv("x", 8, 32)]), 32, 8, output="y")
        result = quantized(builder.model({"x": ["n", 8, 6, 6]}, {"y": ["n", 8, 6, 6]}), NEAREST.format("block=16"))
        _, _, analysis = analyse(result)
        assert not analysis.prunable
        assert "it is quantized in blocks of them" in [frozen.reason for frozen in analysis.frozen]

    def test_a_dialect_with_one_scale_for_all_weights_has_none(self):
        pipeline = "clean,calibrate{dialect=qnn},scale-weights{dialect=qnn,block=16},insert-qdq{dialect=qnn}"
        assert block_sizes(quantized(wide(), pipeline)) == {"Conv": [16, 0], "Gemm": [0]}

    def test_a_negative_block_is_refused(self):
        with pytest.raises(DeburrError) as caught:
            optimized(perceptron(), "scale-weights{block=-1}")
        assert str(caught.value) == "error[E203]: a block of -1, scale-weights; give 16 or more, or 0 for none"

    def test_a_second_run_changes_nothing(self):
        result = quantized(wide(), NEAREST.format("block=16"))
        assert ops(optimized(result, NEAREST.format("block=16")).model) == ops(result)


class TestOddWidths:
    @pytest.mark.parametrize("scheme", ["symmetric", "affine"])
    @pytest.mark.parametrize("bits", range(2, 9))
    def test_integers_stay_within_their_bits(self, bits, scheme):
        result = quantized(perceptron(), NEAREST.format(f"bits={bits},scheme={scheme},smallest=1"))
        small, large = (TensorProto.UINT4, TensorProto.UINT8) if scheme == "affine" else (TensorProto.INT4, TensorProto.INT8)
        stored = [tensor for tensor in result.graph.initializer if tensor.data_type in (small, large) and len(tensor.dims) > 1]
        assert {tensor.data_type for tensor in stored} == {small if bits <= 4 else large}
        low, high = limits(DType.UINT8 if scheme == "affine" else DType.INT8, bits)
        for array in map(numpy_helper.to_array, stored):
            assert low <= int(array.min()) < (low + high) // 2
            assert high - 1 <= int(array.max()) <= high

    def test_every_bit_more_halves_the_error(self):
        random = np.random.default_rng(0)
        x = random.uniform(-1, 3, 20000).astype(np.float32)
        noise = [
            np.square(x - dequantize(quantize(x, q), q)).mean()
            for q in (affine(-1, 3, DType.UINT8, bits=b) for b in range(2, 9))
        ]
        assert np.log2(np.array(noise[:-1]) / noise[1:]) / 2 == pytest.approx(1, abs=0.4)

    @given(st.floats(-1e3, 0, width=32), st.floats(2**-10, 1e3, width=32), st.integers(2, 16))
    def test_the_scale_is_the_range_over_the_steps(self, low, high, bits):
        dtype = DType.UINT8 if bits <= 8 else DType.UINT16
        made = affine(low, high, dtype, bits=bits)
        assert float(made.scale) == pytest.approx((high - low) / (2**bits - 1), rel=1e-6)


class TestAffineWeights:
    def test_they_lose_less_where_weights_lie_to_one_side(self):
        builder = Builder()
        weights = builder.random.uniform(0.5, 1.5, (16, 8, 3, 3)).astype(np.float32) / 72
        builder.node("Conv", ["x", builder.constant(weights), builder.weight(16)], "y", pads=[1] * 4)
        proto = builder.model({"x": ["n", 8, 6, 6]}, {"y": ["n", 16, 6, 6]})
        both = [
            quality(proto, quantized(proto, NEAREST.format(f"bits=4,scheme={scheme}"))) for scheme in ("symmetric", "affine")
        ]
        assert both[1] > both[0] + 1

    @pytest.mark.parametrize("bits", [8, 4])
    @pytest.mark.parametrize("make", [wide, mobilenet, concat_branches, perceptron])
    def test_onnx_runtime_computes_the_same_with_its_optimizations(self, make, bits):
        proto = make()
        result, data = quantized(proto, NEAREST.format(f"scheme=affine,bits={bits}")), samples(proto, 16)
        plain, fast = (outputs(result, data, optimize=optimize)[0] for optimize in (False, True))
        assert sqnr(plain, fast) > 35
        assert sqnr(outputs(proto, data)[0], fast) > (15 if bits == 8 else 8)

    def test_second_order_rounding_stays_within_the_integers(self):
        proto = concat_branches()
        nearest = quality(proto, quantized(proto, NEAREST.format("bits=4,scheme=affine")))
        assert quality(proto, quantized(proto, "clean,quantize{bits=4,scheme=affine}")) > nearest + 1

    @pytest.mark.parametrize("dialect", ["tensorrt", "qnn", "openvino"])
    def test_not_every_dialect_has_them(self, dialect):
        with pytest.raises(DeburrError) as caught:
            optimized(perceptron(), f"scale-weights{{scheme=affine,dialect={dialect}}}")
        assert str(caught.value) == f"error[E203]: the dialect {dialect} has no affine weights, scale-weights"


class TestActivations:
    @pytest.mark.parametrize("activations", ["u16", "s16"])
    def test_16_bits_lose_nearly_nothing(self, activations):
        proto = concat_branches()
        pipeline = "clean,calibrate{{activations={},observer=minmax}},scale-weights,insert-qdq"
        eight, sixteen = (quantized(proto, pipeline.format(one)) for one in ("u8", activations))
        kinds = {tensor.data_type for tensor in sixteen.graph.initializer}
        assert {"u16": TensorProto.UINT16, "s16": TensorProto.INT16}[activations] in kinds
        assert TensorProto.UINT8 not in kinds
        assert quality(proto, sixteen) > quality(proto, eight) + 3

    def test_a_bias_keeps_within_32_bits(self):
        """With scales 256 times finer, the bias needs 8 bits more: where it has none left the weights' scale is raised."""
        builder = Builder()
        bias = np.array([1000, -1000, 0.1, 0], np.float32)
        builder.node("Conv", ["x", builder.weight(4, 3, 1, 1, scale=1e-4), builder.constant(bias)], "y")
        proto = builder.model({"x": ["n", 3, 6, 6]}, {"y": ["n", 4, 6, 6]})
        result = quantized(proto, "clean,calibrate{activations=u16},scale-weights,insert-qdq")
        (stored,) = (numpy_helper.to_array(t) for t in result.graph.initializer if t.data_type == TensorProto.INT32)
        assert 2**26 < np.abs(stored.astype(np.int64)).max() <= 2**30 + 1
        assert quality(proto, result) > 60

    def test_qnn_multiplies_16_bits_by_8(self):
        result = quantized(mobilenet(), "clean,quantize{dialect=qnn,activations=u16,rounding=nearest}")
        kinds = {tensor.data_type for tensor in result.graph.initializer}
        assert {TensorProto.UINT16, TensorProto.INT8} <= kinds
        assert quality(mobilenet(), result) > 30

    @pytest.mark.parametrize(("bits", "kind"), [(2, np.uint8), (5, np.uint8), (8, np.uint8), (12, np.uint16), (16, np.uint16)])
    def test_integers_stay_within_their_bits(self, bits, kind):
        proto, data = concat_branches(), samples(concat_branches(), 40)
        result = quantized(proto, f"clean,calibrate{{bits={bits}}},scale-weights,insert-qdq")
        names = [node.output[0] for node in result.graph.node if node.op_type == "QuantizeLinear"]
        shown = onnx.ModelProto()
        shown.CopyFrom(result)
        del shown.graph.output[:]
        shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
        data = {name: 10 * array for name, array in data.items()}  # further out than calibration has seen
        for optimize in (False, True):
            found = outputs(shown, data, optimize=optimize)
            assert {array.dtype for array in found} == {np.dtype(kind)}
            assert max(int(array.max()) for array in found) == 2**bits - 1

    def test_each_bit_more_loses_less(self):
        proto = concat_branches()
        found = [
            quality(proto, quantized(proto, f"clean,calibrate{{bits={bits}}},scale-weights,insert-qdq")) for bits in (3, 5, 7)
        ]
        assert found[0] + 6 < found[1]
        assert found[1] + 6 < found[2]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ("bits=17", "activations of 17 bits, calibrate; give 2 to 16, or 0"),
            ("bits=1", "activations of 1 bits, calibrate; give 2 to 16, or 0"),
            ("bits=9,activations=u8", "u8 of the dialect ort do not hold 9 bits, calibrate"),
            ("bits=9,dialect=tensorrt", "s8 of the dialect tensorrt do not hold 9 bits, calibrate"),
            ("activations=u16,dialect=openvino", "the dialect openvino has no u16 activations, calibrate"),
        ],
    )
    def test_what_a_dialect_does_not_hold_is_refused(self, options, message):
        with pytest.raises(DeburrError) as caught:
            optimized(perceptron(), f"calibrate{{{options}}}")
        assert str(caught.value) == f"error[E203]: {message}"
