"""QDQ models become integer operators, with ONNX Runtime's numbers."""

import numpy as np
import onnx
import pytest
from models import Builder, concat_branches, conv_chain, depthwise_separable, perceptron, residual_block, samples
from onnx import TensorProto, helper
from program import execute, integers, lowered, ops, plain, quantized

from deburr.ir.evaluate import Evaluator
from deburr.ir.onnx_reader import read
from deburr.ir.onnx_writer import to_proto
from deburr.ir.samples import Samples
from deburr.passes import manager, pipeline
from deburr.passes.core import Context

TARGETS = ("x86-64-v4-vnni", "x86-64-v3", "x86-64-v2")


def wide_flatten():
    """Conv, MaxPool, Flatten of more than one pixel, Gemm: the Gemm is a convolution of the image's size."""
    builder = Builder()
    x = builder.node("MaxPool", [builder.conv("x", 3, 20)], kernel_shape=[2, 2], strides=[2, 2])
    builder.gemm(builder.node("Flatten", [x]), 20 * 4 * 4, 7, "y")
    return builder.model({"x": ["batch", 3, 8, 8]}, {"y": ["batch", 7]})


def average_pooled():
    """AveragePool without padding, then a grouped convolution."""
    builder = Builder()
    x = builder.node("AveragePool", [builder.conv("x", 3, 8)], kernel_shape=[3, 3], strides=[2, 2])
    builder.conv(x, 8, 12, group=2, output="y")
    return builder.model({"x": ["batch", 3, 9, 9]}, {"y": ["batch", 12, 4, 4]})


def with_activations():
    """Activations that no epilogue holds become tables."""
    builder = Builder()
    x = builder.node("LeakyRelu", [builder.conv("x", 3, 8)], alpha=0.1)
    x = builder.node("Sigmoid", [builder.conv(x, 8, 8)])
    builder.conv(x, 8, 4, 1, "y")
    return builder.model({"x": ["batch", 3, 8, 8]}, {"y": ["batch", 4, 8, 8]})


MODELS = {
    "chain": conv_chain, "residual": residual_block, "projected": lambda: residual_block(20, 8, shortcut=True),
    "depthwise": lambda: depthwise_separable(24), "concat": concat_branches, "perceptron": perceptron,
    "flatten": wide_flatten, "average": average_pooled, "activations": with_activations,
}  # fmt: skip


def form(proto, scales, activations="calibrate"):
    """Quantized by deburr, with integers of this form."""
    model = read(proto)
    context = Context(model, data=Samples(samples(proto, 40)))
    manager.run(pipeline.parse(f"clean,{activations},{scales},insert-qdq"), context)
    return to_proto(context.model)


def worst_step(proto, target="x86-64-v4-vnni"):
    """The largest difference between our integers and ONNX Runtime's, over every quantized tensor, and how many there are."""
    original, model, _ = lowered(proto, target, fuse_sums=False)
    data = samples(proto, 1)
    names = [name for name in integers(model) if any(value.name == name for value in original.graph.values)]
    reference = Evaluator(original, capture=names).run(data)
    ours = execute(model, data, target, capture=names)
    worst = 0
    for name in names:
        expected = reference[name].astype(np.int32) + (128 if reference[name].dtype == np.int8 else 0)
        worst = max(worst, int(np.abs(plain(ours[name], expected.shape).astype(np.int32) - expected).max()))
    return worst, len(names)


SIGNED = ("projected", "concat", "flatten")  # s8 differs at the borders only: three models show it


@pytest.mark.parametrize(("name", "signed"), [*((name, False) for name in MODELS), *((name, True) for name in SIGNED)])
def test_every_quantized_tensor_is_within_one_of_onnx_runtime(name, signed):
    proto = quantized(MODELS[name](), signed=signed)
    worst, count = worst_step(proto)
    assert worst <= 1
    assert count >= 3


def test_weights_of_4_bits_run_as_integers():
    proto = form(conv_chain(), "scale-weights{bits=4,smallest=1}")
    assert any(tensor.data_type == TensorProto.INT4 for tensor in proto.graph.initializer)
    original, model, _ = lowered(proto)
    assert not {"Conv", "Gemm", "DequantizeLinear"} & set(ops(model))
    data = samples(proto, 1)
    expected = Evaluator(original).run(data)
    for name, found in execute(model, data).items():
        assert np.abs(found - expected[name]).max() <= 0.02 * np.abs(expected[name]).max()


IN_FLOAT = {
    "blocks": ("scale-weights{block=8}", "calibrate", "its weights have scales in blocks: runs in float"),
    "blocks of 4 bits": ("scale-weights{bits=4,block=8}", "calibrate", "its weights have scales in blocks: runs in float"),
    "affine": ("scale-weights{scheme=affine}", "calibrate", "the weights have a zero point: runs in float"),
    "16 bits": (
        "scale-weights",
        "calibrate{activations=u16}",
        "its integers are uint16, and kernels read 8 bits: runs in float",
    ),
}


@pytest.mark.parametrize("name", IN_FLOAT)
@pytest.mark.parametrize("make", [lambda: conv_chain((3, 16, 24)), perceptron], ids=["convolutions", "matrices"])
def test_what_has_no_integer_kernel_runs_in_float_and_says_so(name, make):
    scales, activations, reason = IN_FLOAT[name]
    proto = form(make(), scales, activations)
    original, model, remarks = lowered(proto)
    assert any(reason in remark for remark in remarks)
    data = samples(proto, 1)
    expected = Evaluator(original).run(data)
    for output, found in execute(model, data).items():
        assert np.abs(found - expected[output]).max() <= 0.02 * np.abs(expected[output]).max()


@pytest.mark.parametrize("name", ["projected", "depthwise", "concat", "average"])
def test_every_target_gives_the_same_bits(name):
    proto = quantized(MODELS[name]())
    data, results = samples(proto, 1), []
    for target in TARGETS:
        _, model, _ = lowered(proto, target)
        results.append(execute(model, data, target)["y"])
    assert np.abs(results[0]).max() > 0
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


@pytest.mark.parametrize("name", ["residual", "projected"])
def test_a_fused_sum_gives_the_bits_of_a_sum_apart(name):
    proto = quantized(MODELS[name]())
    data = samples(proto, 1)
    _, apart, _ = lowered(proto, fuse_sums=False)
    _, fused, _ = lowered(proto)
    assert "Add" in ops(apart)
    assert "Add" not in ops(fused)
    np.testing.assert_array_equal(execute(fused, data)["y"], execute(apart, data)["y"])


def test_a_residual_network_has_no_layout_change_between_its_borders():
    _, model, remarks = lowered(quantized(residual_block()))
    assert ops(model) == ["Quantize", "Conv2d", "Conv2d", "Conv2d", "Pool2d", "Conv2d", "Dequantize"]
    assert not [remark for remark in remarks if remark.startswith("lower:")]


def test_a_flatten_before_a_gemm_disappears():
    _, model, _ = lowered(quantized(wide_flatten()))
    assert ops(model) == ["Quantize", "Conv2d", "Pool2d", "Conv2d", "Dequantize"]
    assert [node.get("kernel") for node in model.graph.nodes if node.op == "Conv2d"] == [(3, 3), (4, 4)]


def test_activations_become_tables():
    _, model, _ = lowered(quantized(with_activations()))
    assert ops(model).count("Lookup") == 2
    assert "LeakyRelu" not in ops(model)


def test_a_concatenation_stays_in_integers():
    _, model, _ = lowered(quantized(concat_branches()))
    assert "Concat" in ops(model)
    assert "ChangeLayout" not in ops(model)


def test_a_float_result_comes_straight_from_the_accumulators():
    proto = quantized(conv_chain())
    last = proto.graph.node[-1]  # take the last Q and DQ away: the Gemm's float32 is the output
    quantize = next(node for node in proto.graph.node if node.output[0] == last.input[0])
    source = quantize.input[0]
    proto.graph.node.remove(last)
    proto.graph.node.remove(quantize)
    for node in proto.graph.node:
        node.output[:] = ["y" if name == source else name for name in node.output]
    _, model, _ = lowered(proto)
    assert ops(model)[-2:] == ["Conv2d", "ChangeLayout"]
    data = samples(proto, 1)
    expected = Evaluator(lowered(proto)[0]).run(data)["y"]
    np.testing.assert_allclose(execute(model, data)["y"], expected, rtol=0.02, atol=0.02 * np.abs(expected).max())


def _asymmetric_weight():
    """DequantizeLinear of weights with a zero point that is not 0."""
    builder = Builder()
    scale, zero = builder.constant(np.float32(0.05)), builder.constant(np.uint8(110))
    x = builder.node("DequantizeLinear", [builder.node("QuantizeLinear", ["x", scale, zero]), scale, zero])
    weight = builder.constant(builder.random.integers(0, 255, (4, 3, 3, 3)).astype(np.uint8))
    w = builder.node("DequantizeLinear", [weight, builder.constant(np.float32(0.01)), builder.constant(np.uint8(120))])
    y = builder.node("Conv", [x, w], pads=[1, 1, 1, 1])
    scale, zero = builder.constant(np.float32(0.5)), builder.constant(np.uint8(100))
    builder.node("DequantizeLinear", [builder.node("QuantizeLinear", [y, scale, zero]), scale, zero], "y")
    return builder.model({"x": ["batch", 3, 6, 6]}, {"y": ["batch", 4, 6, 6]})


def test_what_does_not_fit_stays_in_float_and_says_so():
    proto = _asymmetric_weight()
    original, model, remarks = lowered(proto)
    assert any("its data or weights are not quantized, or the weights have a zero point: runs in float" in r for r in remarks)
    data = samples(proto, 1)
    difference = np.abs(execute(model, data)["y"] - Evaluator(original).run(data)["y"])
    assert difference.max() <= 0.5 + 1e-6  # one step


def test_integer_inputs_and_outputs():
    builder = Builder()
    scale, zero = builder.constant(np.float32(0.1)), builder.constant(np.uint8(3))
    real = builder.node("DequantizeLinear", ["x", scale, zero])
    pooled = builder.node("MaxPool", [real], kernel_shape=[2, 2], strides=[2, 2])
    builder.node("QuantizeLinear", [pooled, scale, zero], "y")
    graph = helper.make_graph(
        builder.nodes, "g", [helper.make_tensor_value_info("x", TensorProto.UINT8, [1, 5, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, [1, 5, 2, 2])], builder.initializers,
    )  # fmt: skip
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(proto, full_check=True)
    original, model, _ = lowered(proto)
    data = {"x": np.random.default_rng(0).integers(0, 256, (1, 5, 4, 4)).astype(np.uint8)}
    np.testing.assert_array_equal(execute(model, data)["y"], Evaluator(original).run(data)["y"])
    assert ops(model) == ["ChangeLayout", "Pool2d", "ChangeLayout"]


def spelt_out(kind):
    """Activations of more than one branch between two convolutions, as exporters write them."""
    builder = Builder()
    x = builder.conv("x", 3, 8)
    one, half, three = (builder.constant(np.float32(number)) for number in (1, 0.5, 3))
    if kind == "gelu":
        erf = builder.node("Erf", [builder.node("Div", [x, builder.constant(np.float32(2**0.5))])])
        y = builder.node("Mul", [builder.node("Mul", [x, builder.node("Add", [erf, one])]), half])
    elif kind == "silu":
        y = builder.node("Mul", [x, builder.node("Sigmoid", [x])])
    else:
        six, zero = builder.constant(np.float32(6)), builder.constant(np.float32(0))
        gate = builder.node("Div", [builder.node("Clip", [builder.node("Add", [x, three]), zero, six]), six])
        y = builder.node("Mul", [x, gate])
    builder.conv(y, 8, 4, 1, "y")
    return builder.model({"x": ["batch", 3, 8, 8]}, {"y": ["batch", 4, 8, 8]})


@pytest.mark.parametrize("kind", ["gelu", "silu", "hard-swish"])
def test_an_activation_spelt_out_is_one_table(kind):
    proto = quantized(spelt_out(kind))
    _, model, remarks = lowered(proto)
    assert ops(model) == ["Quantize", "Conv2d", "Lookup", "Conv2d", "Dequantize"]
    assert not [remark for remark in remarks if remark.startswith("lower:")]
    original, model, _ = lowered(proto)
    data = samples(proto, 1)
    expected = Evaluator(original).run(data)["y"]
    assert np.abs(execute(model, data)["y"] - expected).max() <= 1.01 * step_of(original, "y")


def step_of(model, name):
    """The scale of an output that is dequantized last."""
    return float(model.graph.value(name).producer.input(1).array)


def test_two_quantized_tensors_are_no_table():
    builder = Builder()
    a, b = builder.conv("x", 3, 8), builder.conv("x", 3, 8)
    builder.conv(builder.node("Mul", [a, builder.node("Sigmoid", [b])]), 8, 4, 1, "y")
    proto = quantized(builder.model({"x": ["batch", 3, 8, 8]}, {"y": ["batch", 4, 8, 8]}))
    _, model, _ = lowered(proto)
    assert "Mul" in ops(model)
    data = samples(proto, 1)
    original = lowered(proto)[0]
    difference = np.abs(execute(model, data)["y"] - Evaluator(original).run(data)["y"]).max()
    assert difference <= 1.01 * step_of(original, "y")
