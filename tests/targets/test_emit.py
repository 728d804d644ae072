"""Float models, operators without a template, and the one Relax module that comes out."""

import numpy as np
import onnx
import pytest
from models import (
    Builder,
    branch_on_sum,
    concat_branches,
    conv_chain,
    custom_function,
    depthwise_separable,
    perceptron,
    residual_block,
    samples,
)
from program import execute, lowered, ops

from deburr.ir.errors import DeburrError
from deburr.ir.evaluate import Evaluator
from deburr.ir.onnx_reader import read
from deburr.ir.onnx_writer import to_proto
from deburr.targets.emit import emit
from deburr.targets.target import find


def squeeze_and_excite():
    """A gate per channel, multiplied into the image: broadcasting between blocked images."""
    builder = Builder()
    x = builder.node("Relu", [builder.conv("x", 3, 20)])
    gate = builder.conv(builder.node("GlobalAveragePool", [x]), 20, 20, 1)
    x = builder.node("Mul", [x, builder.node("Sigmoid", [gate])])
    builder.conv(builder.node("HardSwish", [x]), 20, 4, output="y")
    return builder.model({"x": ["batch", 3, 8, 8]}, {"y": ["batch", 4, 8, 8]})


def number_first():
    """A number times an image, as PaddleOCR's networks have it, and the square of it."""
    builder = Builder()
    x = builder.node("Mul", [builder.constant(np.array([0.5], np.float32)), builder.node("Relu", [builder.conv("x", 3, 20)])])
    builder.conv(builder.node("Mul", [x, x]), 20, 4, output="y")
    return builder.model({"x": ["batch", 3, 8, 8]}, {"y": ["batch", 4, 8, 8]})


def attention():
    """LayerNormalization, batched MatMul, Softmax, Transpose, Gelu by Erf: all TVM's."""
    builder = Builder()
    x = builder.node("LayerNormalization", ["x", builder.weight(16, scale=1), builder.weight(16, scale=1)], axis=-1)
    q, k = (builder.node("MatMul", [x, builder.weight(16, 16)]) for _ in range(2))
    scores = builder.node("MatMul", [q, builder.node("Transpose", [k], perm=[0, 2, 1])])
    x = builder.node("MatMul", [builder.node("Softmax", [scores], axis=-1), x])
    x = builder.node("Mul", [x, builder.node("Erf", [x])])
    builder.node("ReduceMean", [x], "y", axes=[1], keepdims=0)
    return builder.model({"x": ["batch", 10, 16]}, {"y": ["batch", 16]})


def decoder():
    """ConvTranspose and Resize between two convolutions."""
    builder = Builder()
    x = builder.node("ConvTranspose", [builder.conv("x", 3, 8), builder.weight(8, 6, 2, 2)], strides=[2, 2])
    x = builder.node("Resize", [x, "", builder.constant(np.array([1, 1, 2, 2], np.float32))], mode="nearest")
    builder.conv(x, 6, 2, output="y")
    return builder.model({"x": ["batch", 3, 4, 4]}, {"y": ["batch", 2, 16, 16]})


def softmax_behind_gemm():
    """An operator that minds its rank, behind one pixel per channel."""
    builder = Builder()
    x = builder.node("GlobalAveragePool", [builder.conv("x", 3, 8)])
    builder.node("Softmax", [builder.node("Flatten", [x])], "y", axis=1)
    return builder.model({"x": ["batch", 3, 4, 4]}, {"y": ["batch", 8]})


MODELS = {
    "chain": conv_chain, "residual": residual_block, "projected": lambda: residual_block(20, 8, shortcut=True),
    "depthwise": lambda: depthwise_separable(24), "concat": concat_branches, "perceptron": perceptron,
    "gate": squeeze_and_excite, "attention": attention, "decoder": decoder, "softmax": softmax_behind_gemm,
    "number first": number_first,
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_float_models_give_onnx_runtimes_numbers(name):
    proto = MODELS[name]()
    original, model, _ = lowered(proto)
    data = samples(proto, 1)
    expected = Evaluator(original).run(data)["y"]
    np.testing.assert_allclose(execute(model, data)["y"], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("target", ["x86-64-v3", "x86-64-v2"])
def test_float_models_on_other_targets(target):
    proto = residual_block(12, 8, shortcut=True)
    original, model, _ = lowered(proto, target)
    data = samples(proto, 1)
    expected = Evaluator(original).run(data)["y"]
    np.testing.assert_allclose(execute(model, data, target)["y"], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_functions_are_inlined():
    proto = custom_function()
    original, model, _ = lowered(proto)
    data = {"x": np.array([1.5], np.float32)}
    np.testing.assert_allclose(execute(model, data)["y"], Evaluator(original).run(data)["y"])


def test_sums_and_activations_live_in_epilogues():
    _, model, _ = lowered(residual_block())
    assert ops(model) == ["ChangeLayout", "Conv2d", "Conv2d", "Conv2d", "Pool2d", "Conv2d", "ChangeLayout"]


def test_elementwise_operators_keep_the_blocked_layout():
    _, model, _ = lowered(squeeze_and_excite())
    assert ops(model).count("ChangeLayout") == 2


def test_a_lowered_model_with_elementwise_operators_is_one_that_the_build_can_read():
    _, model, _ = lowered(squeeze_and_excite())
    assert ops(read(to_proto(model))) == ops(model)


def test_equal_workloads_share_one_function():
    import tvm

    _, model, _ = lowered(residual_block())
    module = emit(model, find("x86-64-v4-vnni"))
    functions = [name.name_hint for name, function in module.functions.items() if isinstance(function, tvm.tirx.PrimFunc)]
    convolutions = [name for name in functions if "conv2d" in name]
    assert ops(model).count("Conv2d") == 4
    assert len(convolutions) == 4  # stem, block 1 (Relu), block 2 (sum), Gemm: all different
    _, chain, _ = lowered(conv_chain((16, 16, 16, 16)))
    shared = emit(chain, find("x86-64-v4-vnni"))
    names = [name.name_hint for name in shared.functions]
    assert sum("conv2d" in name for name in names) == 2  # three equal convolutions and the Gemm


def test_an_operator_that_nobody_supports():
    builder = Builder()
    builder.node("Frobnicate", ["x"], "y", domain="com.example")
    graph = onnx.helper.make_graph(
        builder.nodes,
        "g",
        [onnx.helper.make_tensor_value_info("x", 1, [1, 4])],
        [onnx.helper.make_tensor_value_info("y", 1, [1, 4])],
    )
    imports = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("com.example", 1)]
    proto = onnx.helper.make_model(graph, opset_imports=imports, ir_version=8)
    _, model, _ = lowered(proto)
    with pytest.raises(DeburrError) as caught:
        emit(model, find("x86-64-v3"))
    assert str(caught.value) == (
        "error[E402]: the operator com.example.Frobnicate cannot be compiled, com.example.Frobnicate 'Frobnicate_0': neither a "
        "template of deburr's nor a converter of TVM's takes it; take it out of the model, or fold it away with "
        "`deburr optimize -p clean`"
    )


def test_control_flow_is_refused_by_name():
    _, model, _ = lowered(branch_on_sum())
    with pytest.raises(DeburrError, match=r"error\[E402\]: the operator If cannot be compiled, If 'If_"):
        emit(model, find("x86-64-v3"))


def test_lowering_leaves_the_model_alone():
    model = read(residual_block())
    before = model.revision
    lowered(residual_block())
    assert model.revision == before
