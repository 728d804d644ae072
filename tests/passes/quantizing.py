"""Helpers of the quantization tests: run a pipeline, look at what ONNX Runtime makes of the result."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from models import Builder, samples

from deburr.ir.model import Model
from deburr.ir.onnx_reader import read
from deburr.ir.onnx_writer import to_proto
from deburr.ir.samples import check_samples
from deburr.passes.core import Context
from deburr.passes.manager import run
from deburr.passes.pipeline import parse


def optimized(proto: onnx.ModelProto, pipeline: str, count: int = 40, data: dict | None = None) -> Context:
    """The context after the pipeline, with seeded normal data; its model is the result."""
    model = read(proto)
    context = Context(model, data=check_samples(data or samples(proto, count), model.graph))
    run(parse(pipeline), context)
    return context


def quantized(proto: onnx.ModelProto, pipeline: str = "clean,quantize", count: int = 40) -> onnx.ModelProto:
    """The emitted model, through the full checker."""
    result = to_proto(optimized(proto, pipeline, count).model)
    onnx.checker.check_model(result, full_check=True)
    onnx.shape_inference.infer_shapes(result, check_type=True, strict_mode=True, data_prop=True)
    return result


def fused(proto: onnx.ModelProto, folder: Path) -> Counter[str]:
    """The operators of the graph that ONNX Runtime executes, from the optimized model that it saves."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(folder / "optimized.onnx"), 3
    onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)


def outputs(proto: onnx.ModelProto, inputs: dict, optimize: bool = False) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def sqnr(reference: np.ndarray, other: np.ndarray) -> float:
    """Signal to quantization noise, decibels."""
    return float(10 * np.log10(np.square(reference).sum() / max(np.square(reference - other).sum(), 1e-30)))


def quality(proto: onnx.ModelProto, result: onnx.ModelProto) -> float:
    """SQNR of the first output on the calibration data itself."""
    data = samples(proto, 40)
    return sqnr(outputs(proto, data)[0], outputs(result, data)[0])


def ops(proto: onnx.ModelProto | Model) -> Counter[str]:
    if isinstance(proto, Model):
        return Counter(node.op for node in proto.graph.nodes)
    return Counter(node.op_type for node in proto.graph.node)


def resnet(bottleneck: bool = False, opset: int = 17) -> onnx.ModelProto:
    """The pattern of ResNet-18 (or 50): 7x7 stem, max pooling, two stages of two blocks, pooled into Gemm."""
    builder = Builder()
    x = builder.node("Relu", [builder.conv("x", 3, 16, 7, strides=[2, 2])])
    x = builder.node("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    channels = 16
    for width, stride in ((16, 1), (16, 1), (32, 2), (32, 1)):
        x, channels = _residual(builder, x, channels, width * (2 if bottleneck else 1), stride, bottleneck)
    x = builder.node("Flatten", [builder.node("GlobalAveragePool", [x])])
    builder.gemm(x, channels, 10, "y")
    return builder.model({"x": ["batch", 3, 32, 32]}, {"y": ["batch", 10]}, opset=opset)


def _residual(builder: Builder, x: str, before: int, after: int, stride: int, bottleneck: bool) -> tuple[str, int]:
    inner = after // 2 if bottleneck else after
    y = builder.conv(x, before, inner, 1 if bottleneck else 3, strides=[1 if bottleneck else stride] * 2)
    y = builder.node("Relu", [builder.batch_norm(y, inner)])
    if bottleneck:
        y = builder.node("Relu", [builder.batch_norm(builder.conv(y, inner, inner, strides=[stride] * 2), inner)])
    y = builder.batch_norm(builder.conv(y, inner, after, 1 if bottleneck else 3), after)
    if stride > 1 or before != after:
        x = builder.batch_norm(builder.conv(x, before, after, 1, strides=[stride] * 2), after)
    return builder.node("Relu", [builder.node("Add", [y, x])]), after


def mobilenet() -> onnx.ModelProto:
    """The pattern of MobileNetV2: inverted residuals with ReLU6 and linear projections."""
    builder = Builder()
    low, high = builder.constant(np.float32(0)), builder.constant(np.float32(6))

    def relu6(x: str) -> str:
        return builder.node("Clip", [x, low, high])

    x, before = relu6(builder.conv("x", 3, 8, strides=[2, 2])), 8
    for after, stride in ((8, 1), (16, 2), (16, 1)):
        y = relu6(builder.conv(x, before, 4 * before, 1))
        y = relu6(builder.conv(y, 4 * before, 4 * before, group=4 * before, strides=[stride] * 2))
        y = builder.conv(y, 4 * before, after, 1)
        x, before = (builder.node("Add", [x, y]) if stride == 1 and before == after else y), after
    x = builder.node("GlobalAveragePool", [relu6(builder.conv(x, before, 32, 1))])
    builder.gemm(builder.node("Flatten", [x]), 32, 10, "y")
    return builder.model({"x": ["batch", 3, 24, 24]}, {"y": ["batch", 10]})
