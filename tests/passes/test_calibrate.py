"""calibrate, scale-weights and correct-bias: what they note, and what they refuse."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from models import Builder, conv_chain, residual_block, samples
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

import deburr
from deburr.ir.errors import DeburrError
from deburr.ir.onnx_reader import read
from deburr.ir.onnx_writer import to_proto
from deburr.ir.samples import Samples
from deburr.ir.types import DType, QParams
from deburr.passes import registry
from deburr.passes.core import Context
from deburr.passes.linear import activations
from deburr.passes.manager import run
from deburr.passes.pipeline import parse
from deburr.passes.quantize.arithmetic import affine, dequantize, quantize, symmetric
from deburr.passes.quantize.gains import gains

from .quantizing import mobilenet, optimized, outputs, quantized, sqnr


def test_ranges_are_noted_behind_activation_functions() -> None:
    graph = optimized(residual_block(), "clean,calibrate{observer=minmax}").model.graph
    noted = {value.producer.op if value.producer else "input": value.qparams for value in graph.values if value.qparams}
    assert set(noted) == {"input", "Relu", "Conv", "GlobalAveragePool", "Flatten"}  # this Conv feeds the Add
    assert noted["Relu"].zero_point == 0
    assert noted["Conv"].zero_point > 0
    assert noted["Flatten"] == noted["GlobalAveragePool"]
    assert not any(value.qparams for value in graph.outputs)


def test_minmax_scale_is_the_range_in_255_steps() -> None:
    proto = residual_block()
    data = samples(proto, 40)["x"]
    qparams = optimized(proto, "clean,calibrate{observer=minmax}").model.graph.inputs[0].qparams
    assert qparams.scale == pytest.approx((data.max() - data.min()) / 255)
    assert qparams.zero_point == round(-data.min() / float(qparams.scale))


@pytest.mark.parametrize("observer", ["minmax", "moving-average", "percentile", "entropy", "mse", "output-weighted"])
def test_batches_do_not_change_the_result(observer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = optimized(conv_chain(), f"clean,calibrate{{observer={observer}}}").model.graph
    monkeypatch.setattr(activations, "MEMORY", 1)
    single = optimized(conv_chain(), f"clean,calibrate{{observer={observer}}}").model.graph
    for value, other in zip(whole.values, single.values, strict=True):
        assert value.qparams == other.qparams


def test_batches_fit_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(activations, "MEMORY", 40_000)
    original = activations.capture

    def spy(model, names, data, batch):
        for results in original(model, names, data, batch):
            seen.append(sum(array.nbytes for array in results.values()))
            yield results

    monkeypatch.setattr(activations, "capture", spy)
    optimized(conv_chain(), "clean,calibrate")
    assert max(seen) <= 40_000
    assert max(seen) > min(seen)


def test_samples_of_several_sizes() -> None:
    """Every observer and every way of rounding takes them; nothing is left out of the range."""
    builder = Builder()
    x = builder.node("Relu", [builder.conv("x", 3, 8)])
    x = builder.node("Flatten", [builder.node("GlobalAveragePool", [builder.conv(x, 8, 8)])])
    builder.gemm(x, 8, 10, "y")
    proto = builder.model({"x": ["n", 3, "h", "w"]}, {"y": ["n", 10]})
    random = np.random.default_rng(0)
    parts = [{"x": random.standard_normal((20, 3, size, size + 2)).astype(np.float32) * size} for size in (5, 8, 6)]
    seen = deburr.optimize(read(proto), "clean,calibrate{observer=minmax}", data=parts)
    largest = max(float(part["x"].max()) for part in parts), min(float(part["x"].min()) for part in parts)
    assert seen.graph.inputs[0].qparams.scale == pytest.approx((largest[0] - largest[1]) / 255)
    for options in (*(f"observer={name}" for name in registry.observers()), "rounding=corrected", "rounding=nearest"):
        result = to_proto(deburr.optimize(read(proto), f"clean,quantize{{{options}}}", data=parts))
        for part in parts:
            assert sqnr(outputs(proto, part)[0], outputs(result, part)[0]) > 20


def test_progress_counts_batches() -> None:
    seen = []

    def progress(items, total, description):
        items = list(items)
        seen.append((len(items), total, description))
        yield from items

    model = read(conv_chain())
    context = Context(model, data=Samples(samples(conv_chain(), 70)), progress=progress)
    run(parse("clean,calibrate"), context)
    assert seen == [(3, 3, "calibrating")]


def test_without_data_nothing_runs() -> None:
    with pytest.raises(DeburrError) as caught:
        run(parse("clean,calibrate"), Context(read(conv_chain())))
    assert str(caught.value) == (
        "error[E206]: the pass calibrate needs calibration data, pipeline clean,calibrate: none was given; "
        "give samples with --data FILE.npz"
    )


def test_infinity_inside_the_model_names_the_tensor() -> None:
    builder = Builder()
    x = builder.node("Exp", ["x"], "huge")
    builder.conv(x, 3, 4, output="y")
    proto = builder.model({"x": ["n", 3, 4, 4]}, {"y": ["n", 4, 4, 4]})
    with pytest.raises(DeburrError) as caught:
        optimized(proto, "calibrate", data={"x": np.full((40, 3, 4, 4), 200, np.float32)})
    assert str(caught.value) == (
        "error[E304]: NaN or infinity inside the model, tensor 'huge': it arises from the calibration data in memory; "
        "look for samples out of the usual range, or an overflow in the model"
    )


def test_few_samples_give_a_remark() -> None:
    remarks = optimized(conv_chain(), "calibrate", count=4).remarks
    assert [str(remark) for remark in remarks] == [
        "calibrate: memory: only 4 calibration samples: ranges are measured on few numbers (give at least 32)"
    ]
    assert not optimized(conv_chain(), "calibrate", count=32).remarks


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("percentile=20", "error[E203]: a percentile of 20.0, calibrate; give more than 50, at most 100"),
        ("dialect=orc", "error[E203]: no dialect 'orc'; there are ort"),
        ("observer=min", "error[E203]: no observer 'min', calibrate"),
        ("activations=s8", "error[E203]: the dialect ort has no s8 activations, calibrate"),
    ],
)
def test_wrong_options(options: str, message: str) -> None:
    with pytest.raises(DeburrError) as caught:
        optimized(conv_chain(), f"calibrate{{{options}}}")
    assert str(caught.value).startswith(message)


def test_output_weighted_reads_the_gains_off_the_weights() -> None:
    """Errors in a channel count as much as the squared weights that read it, in a convolution and behind a Flatten."""
    builder = Builder()
    builder.conv("x", 4, 6, group=2, output="c")
    builder.gemm(builder.node("Flatten", ["c"]), 6 * 9, 5, "y")
    graph = read(builder.model({"x": ["n", 4, 3, 3]}, {"y": ["n", 5]})).graph
    kernel, matrix = (node.input(1).array for node in graph.nodes if node.op in ("Conv", "Gemm"))
    wanted = [np.square(kernel[group * 3 : group * 3 + 3]).sum(axis=(0, 2, 3)) for group in (0, 1)]
    assert gains(graph.value("x"))[:, 0, 0] == pytest.approx(np.concatenate(wanted))
    assert gains(graph.value("c")) == pytest.approx(np.square(matrix).sum(axis=0).reshape(6, 3, 3))
    assert gains(graph.value("y")) is None


def test_weights_have_a_scale_for_each_output_channel() -> None:
    graph = optimized(residual_block(), "clean,calibrate,scale-weights").model.graph
    for node in graph.nodes:
        if node.op in ("Conv", "Gemm"):
            weights = node.input(1)
            assert weights.qparams.axis == 0
            others = tuple(range(1, weights.array.ndim))
            assert weights.qparams.scale == pytest.approx(np.abs(weights.array).max(axis=others) / 127)


def dead_and_huge(shape: tuple[int, ...], bias: float) -> onnx.ModelProto:
    builder = Builder()
    weights = builder.random.standard_normal(shape).astype(np.float32)
    weights[1], weights[2] = 0, weights[2] * 1e-9
    biases = np.full(shape[0], bias, np.float32)
    builder.node("Conv", ["x", builder.constant(weights), builder.constant(biases)], "y", kernel_shape=shape[2:])
    return builder.model({"x": ["n", shape[1], 5, 5]}, {"y": ["n", shape[0], 6 - shape[2], 6 - shape[3]]})


@pytest.mark.parametrize("bias", [0.0, 3.0, -1e4])
def test_dead_channels_and_huge_biases_raise_the_scale(bias: float) -> None:
    proto = dead_and_huge((4, 3, 3, 3), bias)
    result = quantized(proto)
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in result.graph.initializer}
    biases = next(array for array in stored.values() if array.dtype == np.int32 and array.ndim == 1)
    assert np.abs(biases.astype(np.int64)).max() <= 2**30 + 2**10
    data = samples(proto, 40)
    exact, ours = outputs(proto, data)[0], outputs(result, data)[0]
    assert sqnr(exact, ours) > 30
    assert np.abs(exact - ours)[:, 1:3].max() <= np.ptp(exact) / 255 + abs(bias) * 2e-2


def test_shared_weights_are_cloned_where_their_axes_differ() -> None:
    builder = Builder()
    shared = builder.weight(8, 8)
    y = builder.node("MatMul", ["x", shared])
    y = builder.node("Gemm", [y, shared], transB=1)
    builder.node("Gemm", [y, shared], "y", transB=1)
    graph = optimized(builder.model({"x": ["n", 8]}, {"y": ["n", 8]}), "calibrate,scale-weights").model.graph
    weights = {node.input(1): node.op for node in graph.nodes}
    assert sorted((op, value.qparams.axis) for value, op in weights.items()) == [("Gemm", 0), ("MatMul", 1)]


def test_weights_of_a_stack_of_matrices_have_one_scale() -> None:
    builder = Builder()
    builder.node("MatMul", ["x", builder.weight(4, 8, 6)], "y")
    proto = builder.model({"x": ["n", 4, 5, 8]}, {"y": ["n", 4, 5, 6]})
    graph = optimized(proto, "calibrate,scale-weights").model.graph
    assert graph.constants[0].qparams.axis is None
    outputs(quantized(proto), samples(proto, 2), optimize=True)


def test_gemm_factors_and_bias_shapes_are_brought_to_rows() -> None:
    for shape in ((1,), (1, 6), ()):
        builder = Builder()
        bias = builder.constant(builder.random.standard_normal(shape).astype(np.float32))
        builder.node("Gemm", ["x", builder.weight(8, 6), bias], "y", alpha=0.5, beta=3.0)
        proto = builder.model({"x": ["n", 8]}, {"y": ["n", 6]})
        model = optimized(proto, "calibrate,scale-weights").model
        node = next(model.graph.nodes)
        assert not node.attributes
        assert node.input(2).static_shape == (6,)
        data = samples(proto, 40)
        assert sqnr(outputs(proto, data)[0], outputs(quantized(proto), data)[0]) > 35


def test_second_run_changes_nothing() -> None:
    context = optimized(residual_block(), "clean,calibrate,scale-weights")
    before = context.model.revision
    run(parse("calibrate,scale-weights"), context)
    assert context.model.revision == before


def test_corrected_biases_leave_no_mean_error() -> None:
    """One layer with coarse rounding: the mean of each output channel is that of the float model again."""
    proto = dead_and_huge((6, 3, 3, 3), 0.5)
    data = samples(proto, 200)
    data["x"] = np.abs(data["x"]) + 1
    exact = outputs(proto, data)[0].mean(axis=(0, 2, 3))

    def error(pipeline: str) -> float:
        result = to_proto(optimized(proto, pipeline, data=data).model)
        error = np.abs(outputs(result, data)[0].mean(axis=(0, 2, 3)) - exact)
        return float(error[[0, 3, 4, 5]].max())  # the others give a constant, which only the output's own step rounds

    plain, corrected = (error(f"quantize{{observer=minmax,rounding={how}}}") for how in ("nearest", "corrected"))
    assert corrected < plain / 3


def test_bias_correction_helps_a_depthwise_network() -> None:
    proto = mobilenet()
    data = samples(proto, 40)
    exact = outputs(proto, data)[0]

    def bias_of(pipeline: str) -> float:
        return float(np.abs((outputs(quantized(proto, pipeline), data)[0] - exact).mean(axis=0)).mean())

    assert bias_of("clean,quantize{observer=minmax,rounding=corrected}") < bias_of(
        "clean,quantize{observer=minmax,rounding=nearest}"
    )


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 6.0), (-1.0, 1.0), (2.0, 3.0), (-4.0, -1.0), (0.0, 0.0), (-1e-3, 1e3), (0, 3e38)]
)
@pytest.mark.parametrize("dtype", [DType.UINT8, DType.INT8])
def test_zero_is_exact_and_the_ends_are_covered(low: float, high: float, dtype: DType) -> None:
    qparams = affine(low, high, dtype)
    assert dequantize(quantize(np.zeros(1, np.float32), qparams), qparams)[0] == 0
    ends = np.array([min(low, 0), max(high, 0)], np.float32)
    assert np.abs(dequantize(quantize(ends, qparams), qparams) - ends).max() <= qparams.scale * 0.51
    if low >= 0:
        assert qparams.zero_point == (0 if dtype is DType.UINT8 else -128)


def qdq(qparams: QParams, shape: tuple[int, ...], opset: int) -> onnx.ModelProto:
    """x -> q -> y with these parameters."""
    axis = {} if qparams.axis is None else {"axis": qparams.axis}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], **axis),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], **axis),
    ]
    constants = [
        onnx.numpy_helper.from_array(qparams.scale, "s"),
        onnx.numpy_helper.from_array(qparams.zero_point.astype(qparams.dtype.numpy), "z"),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    results = [("q", int(qparams.dtype)), ("y", TensorProto.FLOAT)]
    infos = [helper.make_tensor_value_info(name, dtype, shape) for name, dtype in results]
    graph = helper.make_graph(nodes, "g", inputs, infos, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8 if opset < 19 else 10)


@pytest.mark.parametrize("opset", [13, 19, 21])
@pytest.mark.parametrize("dtype", [DType.UINT8, DType.INT8])
def test_arithmetic_is_that_of_onnx(opset: int, dtype: DType) -> None:
    """Ties and saturation included, per tensor and along an axis, against ONNX Runtime and the ONNX reference evaluator."""
    ties = (np.arange(-600, 600) / 2 * 0.25).astype(np.float32).reshape(4, 300)
    normal = np.random.default_rng(0).normal(0, 20, (4, 300)).astype(np.float32)
    magnitude = np.array([31.75, 0.5, 10, 1e-3], np.float32)
    for x in (ties, normal):
        for qparams in (affine(-10, 53.75, dtype), symmetric(magnitude, DType.INT8, 0)):
            proto = qdq(qparams, x.shape, opset)
            references = [outputs(proto, {"x": x})]
            if opset >= 19:  # onnx 1.23 implements DequantizeLinear from there on
                references.append(ReferenceEvaluator(proto).run(None, {"x": x}))
            for q, y in references:
                assert np.array_equal(quantize(x, qparams), q)
                assert np.allclose(dequantize(q, qparams), y, rtol=1e-6, atol=0)
