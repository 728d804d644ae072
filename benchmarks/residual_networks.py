"""Residual networks at 224 x 224 with seeded random weights: for timing and for counting operators, not for accuracy.

ResNet-50 has bottlenecks (He et al. 2015; the stride is in the 3x3 convolution), MobileNetV2 inverted residuals (Sandler et al.
2018, table 2), and so has EfficientNet-lite0 (Tan & Le 2019, less what its authors took out for small devices; windows lie in
the middle here, where TensorFlow's do not). All: "image" float [batch, 3, size, size] -> "logits" float [batch, 1000].
"""

from __future__ import annotations

import numpy as np
import onnx
from make_resnet18 import WIDTHS, Network, resnet18

DEPTHS = (3, 4, 6, 3)
# Expansion, channels, blocks, stride of the first, window of the depthwise convolutions.
Stages = tuple[tuple[int, int, int, int, int], ...]
INVERTED: Stages = (
    (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 32, 3, 2, 3), (6, 64, 4, 2, 3), (6, 96, 3, 1, 3), (6, 160, 3, 2, 3),
    (6, 320, 1, 1, 3),
)  # fmt: skip
LITE0: Stages = (
    (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5), (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)  # fmt: skip


def resnet50(seed: int = 0, size: int = 224, fold: bool = False) -> onnx.ModelProto:
    """25.6 million parameters, in 16 bottlenecks."""
    net = Network(seed, fold)
    x = net.node("Relu", [net.conv_norm("image", "stem", (3, 64), 7, 2)], "stem.relu")
    x = net.node("MaxPool", [x], "stem.pool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    channels = 64
    for stage, (width, depth) in enumerate(zip(WIDTHS, DEPTHS, strict=True)):
        for index in range(depth):
            x = _bottleneck(net, x, f"stage{stage}.{index}", (channels, width), 2 if stage and not index else 1)
            channels = 4 * width
    return net.classify(x, "resnet50", channels, size)


def _bottleneck(net: Network, x: str, name: str, channels: tuple[int, int], stride: int) -> str:
    inputs, width = channels
    y = net.node("Relu", [net.conv_norm(x, f"{name}.conv1", (inputs, width), 1, 1)], f"{name}.relu1")
    y = net.node("Relu", [net.conv_norm(y, f"{name}.conv2", (width, width), 3, stride)], f"{name}.relu2")
    y = net.conv_norm(y, f"{name}.conv3", (width, 4 * width), 1, 1)
    if inputs != 4 * width:
        x = net.conv_norm(x, f"{name}.shortcut", (inputs, 4 * width), 1, stride)
    return net.node("Relu", [net.node("Add", [y, x], f"{name}.add")], f"{name}.relu3")


def mobilenet_v2(seed: int = 0, size: int = 224, fold: bool = False) -> onnx.ModelProto:
    """3.5 million parameters, in 17 inverted residuals."""
    return _inverted(Network(seed, fold), "mobilenet_v2", INVERTED, size)


def efficientnet_lite0(seed: int = 0, size: int = 224, fold: bool = False) -> onnx.ModelProto:
    """4.7 million parameters, in 16 inverted residuals."""
    return _inverted(Network(seed, fold), "efficientnet_lite0", LITE0, size)


def _inverted(net: Network, title: str, stages: Stages, size: int) -> onnx.ModelProto:
    net.weights += [onnx.numpy_helper.from_array(np.float32(bound), name) for name, bound in (("zero", 0), ("six", 6))]
    x, channels = _relu6(net, net.conv_norm("image", "stem", (3, 32), 3, 2)), 32
    for stage, (expansion, width, depth, first, window) in enumerate(stages):
        for index in range(depth):
            y, inner = x, channels * expansion
            name, stride = f"stage{stage}.{index}", 1 if index else first
            if expansion > 1:
                y = _relu6(net, net.conv_norm(y, f"{name}.expand", (channels, inner), 1, 1))
            y = _relu6(net, net.conv_norm(y, f"{name}.depthwise", (inner, inner), window, stride, group=inner))
            y = net.conv_norm(y, f"{name}.project", (inner, width), 1, 1)
            x = net.node("Add", [x, y], f"{name}.add") if stride == 1 and channels == width else y
            channels = width
    return net.classify(_relu6(net, net.conv_norm(x, "last", (channels, 1280), 1, 1)), title, 1280, size)


def _relu6(net: Network, x: str) -> str:
    return net.node("Clip", [x, "zero", "six"], f"{x}.relu6")


NETWORKS = {
    "resnet18": resnet18, "resnet50": resnet50, "mobilenet_v2": mobilenet_v2, "efficientnet_lite0": efficientnet_lite0
}  # fmt: skip
