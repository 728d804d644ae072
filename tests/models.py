"""Tiny ONNX models for every room's tests, made with onnx.helper from a seeded generator.

`from models import residual_block` works in any test (tests/conftest.py puts this folder on the path). Every builder returns
an `onnx.ModelProto` that passes the full checker; images are "x" float [batch, channels, height, width], results "y".
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Dims = Sequence[int | str | None]


class Builder:
    """Collects nodes and weights; each layer returns the name of its output."""

    def __init__(self, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def weight(self, *shape: int, scale: float | None = None, name: str = "w") -> str:
        """A float32 initializer, scaled so that activations keep their size."""
        fan = int(np.prod(shape[1:])) or 1
        array = self.random.standard_normal(shape) * (scale if scale is not None else (2 / fan) ** 0.5)
        return self.constant(array.astype(np.float32), name)

    def constant(self, array: Any, name: str = "c") -> str:
        name = f"{name}{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(self, op: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        """Add a node with one output."""
        name = f"{op}_{len(self.nodes)}"
        output = output or f"{name}_out"
        self.nodes.append(helper.make_node(op, inputs, [output], name, **attributes))
        return output

    def conv(self, x: str, channels_in: int, channels_out: int, kernel: int = 3, output: str = "", **attributes: Any) -> str:
        """Conv with bias, padded to keep the size at stride 1."""
        group = attributes.get("group", 1)
        weight = self.weight(channels_out, channels_in // group, kernel, kernel)
        attributes.setdefault("pads", [kernel // 2] * 4)
        return self.node("Conv", [x, weight, self.weight(channels_out, scale=0.1, name="b")], output, **attributes)

    def batch_norm(self, x: str, channels: int, output: str = "") -> str:
        """BatchNormalization with positive scale and variance."""
        scale, variance = (self.constant(self.random.uniform(0.5, 1.5, channels).astype(np.float32)) for _ in range(2))
        shift, mean = self.weight(channels, scale=0.3), self.weight(channels, scale=0.3)
        return self.node("BatchNormalization", [x, scale, shift, mean, variance], output)

    def gemm(self, x: str, features_in: int, features_out: int, output: str = "") -> str:
        """Gemm with transB, as PyTorch writes it."""
        bias = self.weight(features_out, scale=0.1, name="b")
        return self.node("Gemm", [x, self.weight(features_out, features_in), bias], output, transB=1)

    def model(
        self,
        inputs: Mapping[str, Dims],
        outputs: Mapping[str, Dims],
        *,
        opset: int = 17,
        dtype: int = TensorProto.FLOAT,
        **fields: Any,
    ) -> onnx.ModelProto:
        """The model, checked with strict shape inference."""
        graph = helper.make_graph(
            self.nodes, "tiny",
            [helper.make_tensor_value_info(name, dtype, dims) for name, dims in inputs.items()],
            [helper.make_tensor_value_info(name, dtype, dims) for name, dims in outputs.items()],
            self.initializers,
        )  # fmt: skip
        fields.setdefault("opset_imports", [helper.make_opsetid("", opset)])
        model = helper.make_model(graph, ir_version=fields.pop("ir_version", 8), **fields)
        onnx.checker.check_model(model, full_check=True)
        return model


def conv_chain(
    channels: Sequence[int] = (3, 8, 16), size: int = 8, opset: int = 17, batch: int | str = "batch"
) -> onnx.ModelProto:
    """Conv, BatchNormalization, Relu for every step in `channels`, then global pooling, Flatten and Gemm to 10."""
    builder, x = Builder(), "x"
    for channels_in, channels_out in itertools.pairwise(channels):
        x = builder.conv(x, channels_in, channels_out)
        x = builder.node("Relu", [builder.batch_norm(x, channels_out)])
    x = builder.node("Flatten", [builder.node("GlobalAveragePool", [x])])
    builder.gemm(x, channels[-1], 10, "y")
    return builder.model({"x": [batch, channels[0], size, size]}, {"y": [batch, 10]}, opset=opset)


def residual_block(channels: int = 8, size: int = 8, shortcut: bool = False) -> onnx.ModelProto:
    """A stem and one residual block (with a projected shortcut and stride 2 if asked), pooled into Gemm."""
    builder = Builder()
    stem = builder.node("Relu", [builder.conv("x", 3, channels)])
    stride, wide = ([2, 2], 2 * channels) if shortcut else ([1, 1], channels)
    x = builder.node("Relu", [builder.batch_norm(builder.conv(stem, channels, wide, strides=stride), wide)])
    x = builder.batch_norm(builder.conv(x, wide, wide), wide)
    other = builder.batch_norm(builder.conv(stem, channels, wide, 1, strides=stride), wide) if shortcut else stem
    x = builder.node("Relu", [builder.node("Add", [x, other])])
    x = builder.node("Flatten", [builder.node("GlobalAveragePool", [x])])
    builder.gemm(x, wide, 10, "y")
    return builder.model({"x": ["batch", 3, size, size]}, {"y": ["batch", 10]})


def depthwise_separable(channels: int = 8, size: int = 8) -> onnx.ModelProto:
    """Pointwise, depthwise (Relu6 by Clip) and pointwise convolution."""
    builder = Builder()
    low, high = builder.constant(np.float32(0)), builder.constant(np.float32(6))
    x = builder.node("Clip", [builder.conv("x", 3, channels, 1), low, high])
    x = builder.node("Clip", [builder.conv(x, channels, channels, group=channels), low, high])
    builder.conv(x, channels, 4, 1, "y")
    return builder.model({"x": ["batch", 3, size, size]}, {"y": ["batch", 4, size, size]})


def concat_branches(size: int = 8) -> onnx.ModelProto:
    """Two convolutions whose channels are concatenated and convolved again."""
    builder = Builder()
    left, right = (builder.node("Relu", [builder.conv("x", 3, width)]) for width in (4, 6))
    joined = builder.node("Concat", [left, right], axis=1)
    builder.conv(builder.node("MaxPool", [joined], kernel_shape=[2, 2], strides=[2, 2]), 10, 5, output="y")
    return builder.model({"x": ["batch", 3, size, size]}, {"y": ["batch", 5, size // 2, size // 2]})


def perceptron(widths: Sequence[int] = (16, 32, 10), opset: int = 17) -> onnx.ModelProto:
    """Gemm and Relu chain on "x" [batch, widths[0]]."""
    builder, x = Builder(), "x"
    for index, (before, after) in enumerate(itertools.pairwise(widths)):
        last = index == len(widths) - 2
        x = builder.gemm(x, before, after, "y" if last else "")
        x = x if last else builder.node("Relu", [x])
    return builder.model({"x": ["batch", widths[0]]}, {"y": ["batch", widths[-1]]}, opset=opset)


def branch_on_sum(opset: int = 17) -> onnx.ModelProto:
    """If the sum of "x" [4] is positive, x * w, else x - w, where w is a constant of the outer graph."""
    builder = Builder()
    weight = builder.weight(4)
    total = builder.node("ReduceSum", ["x"], keepdims=0)
    condition = builder.node("Greater", [total, builder.constant(np.float32(0))])

    def branch(op: str, output: str) -> onnx.GraphProto:
        info = helper.make_tensor_value_info(output, TensorProto.FLOAT, [4])
        return helper.make_graph([helper.make_node(op, ["x", weight], [output], f"inner_{op}")], f"then_{op}", [], [info])

    builder.node("If", [condition], "y", then_branch=branch("Mul", "product"), else_branch=branch("Sub", "difference"))
    return builder.model({"x": [4]}, {"y": [4]}, opset=opset)


def custom_function() -> onnx.ModelProto:
    """A model-local function Scale(x; factor = 2) = x * factor, called with the default and with factor 3."""
    body = [
        onnx.parser.parse_node("f = Constant <value_float: float = @factor> ()"),
        onnx.parser.parse_node("y = Mul(x, f)"),
    ]
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    function = helper.make_function(
        "local", "Scale", ["x"], ["y"], body, imports[:1], [], [helper.make_attribute("factor", 2.0)]
    )
    builder = Builder()
    first = builder.node("Scale", ["x"], domain="local")
    builder.node("Scale", [first], "y", domain="local", factor=3.0)
    return builder.model({"x": ["n"]}, {"y": ["n"]}, opset_imports=imports, functions=[function])


def samples(model: onnx.ModelProto, count: int = 4, seed: int = 1) -> dict[str, np.ndarray]:
    """Normal float32 data for every input; an unknown or symbolic dim becomes `count`."""
    random, data = np.random.default_rng(seed), {}
    initializers = {tensor.name for tensor in model.graph.initializer}
    for info in model.graph.input:
        if info.name not in initializers:
            dims = [dim.dim_value if dim.HasField("dim_value") else count for dim in info.type.tensor_type.shape.dim]
            dtype = helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
            data[info.name] = random.standard_normal(dims).astype(dtype)
    return data


def transformer_layer(tokens: int = 10, width: int = 24, heads: int = 3, inner: int = 40) -> onnx.ModelProto:
    """Self-attention and a feed-forward block with GELU, each with a sum and a LayerNormalization, as PyTorch exports them."""
    builder = Builder()

    def linear(x: str, inputs: int, outputs: int) -> str:
        weight = builder.weight(inputs, outputs, scale=inputs**-0.5)
        return builder.node("Add", [builder.node("MatMul", [x, weight]), builder.weight(outputs, scale=0.1)])

    def split(x: str, order: list[int]) -> str:
        shape = builder.constant(np.array([0, tokens, heads, width // heads]))
        return builder.node("Transpose", [builder.node("Reshape", [linear(x, width, width), shape])], perm=order)

    def normalized(x: str, output: str = "") -> str:
        return builder.node(
            "LayerNormalization", [x, builder.weight(width, scale=1.0), builder.weight(width, scale=0.1)], output, axis=-1
        )

    scores = builder.node("MatMul", [split("x", [0, 2, 1, 3]), split("x", [0, 2, 3, 1])])
    scores = builder.node("Div", [scores, builder.constant(np.float32((width // heads) ** 0.5))])
    mixed = builder.node("MatMul", [builder.node("Softmax", [scores], axis=-1), split("x", [0, 2, 1, 3])])
    joined = builder.node("Transpose", [mixed], perm=[0, 2, 1, 3])
    joined = builder.node("Reshape", [joined, builder.constant(np.array([0, tokens, width]))])
    x = normalized(builder.node("Add", [linear(joined, width, width), "x"]))
    wide = linear(x, width, inner)
    erf = builder.node("Erf", [builder.node("Div", [wide, builder.constant(np.float32(2**0.5))])])
    wide = builder.node("Mul", [wide, builder.node("Add", [erf, builder.constant(np.float32(1))])])
    wide = builder.node("Mul", [wide, builder.constant(np.float32(0.5))])
    normalized(builder.node("Add", [linear(wide, inner, width), x]), "y")
    return builder.model({"x": ["batch", tokens, width]}, {"y": ["batch", tokens, width]})
