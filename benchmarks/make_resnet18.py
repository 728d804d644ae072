"""Writes ResNet-18 (He et al. 2015) at 224 x 224 as ONNX, with seeded He-initialized weights: for timing, not for accuracy.

    python benchmarks/make_resnet18.py build/resnet18.onnx [--fold] [--calibration build/resnet18.npz]

With `--fold` the file holds no BatchNormalization. `--calibration` writes 16 images of smoothed noise beside it, so that ranges
can be measured; the weights are random, and so are the ranges.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDTHS = (64, 128, 256, 512)
EPSILON = 1e-5


class Network:
    """Nodes and weights under construction."""

    def __init__(self, seed: int, fold: bool) -> None:
        self.random, self.fold = np.random.default_rng(seed), fold
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def node(self, op: str, inputs: list[str], name: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(op, inputs, [name], name, **attributes))
        return name

    def weight(self, array: np.ndarray, name: str) -> str:
        self.weights.append(numpy_helper.from_array(array.astype(np.float32), name))
        return name

    def conv_norm(self, x: str, name: str, channels: tuple[int, int], kernel: int, stride: int, *, group: int = 1) -> str:
        """Convolution and BatchNormalization; folded, the statistics are in the weights."""
        inputs, outputs = channels[0] // group, channels[1]
        weight = self.random.standard_normal((outputs, inputs, kernel, kernel)) * (2 / (inputs * kernel * kernel)) ** 0.5
        scale, shift = self.random.uniform(0.4, 0.8, outputs), self.random.normal(0, 0.1, outputs)
        mean, variance = self.random.normal(0, 0.1, outputs), self.random.uniform(0.8, 1.2, outputs)
        window: dict[str, object] = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [kernel // 2] * 4} | (
            {"group": group} if group > 1 else {}
        )
        if self.fold:
            factor = scale / np.sqrt(variance + EPSILON)
            parts = [self.weight(weight * factor[:, None, None, None], f"{name}.weight")]
            return self.node("Conv", [x, *parts, self.weight(shift - mean * factor, f"{name}.bias")], name, **window)
        x = self.node("Conv", [x, self.weight(weight, f"{name}.weight")], name, **window)
        statistics = {"scale": scale, "shift": shift, "mean": mean, "variance": variance}
        names = [self.weight(array, f"{name}.{part}") for part, array in statistics.items()]
        return self.node("BatchNormalization", [x, *names], f"{name}.norm", epsilon=EPSILON)

    def block(self, x: str, name: str, channels: tuple[int, int], stride: int) -> str:
        """Two convolutions beside a shortcut, projected where the shape changes."""
        _, outputs = channels
        y = self.node("Relu", [self.conv_norm(x, f"{name}.conv1", channels, 3, stride)], f"{name}.relu1")
        y = self.conv_norm(y, f"{name}.conv2", (outputs, outputs), 3, 1)
        if stride > 1 or channels[0] != outputs:
            x = self.conv_norm(x, f"{name}.shortcut", channels, 1, stride)
        return self.node("Relu", [self.node("Add", [y, x], f"{name}.add")], f"{name}.relu2")

    def classify(self, x: str, name: str, channels: int, size: int) -> onnx.ModelProto:
        """The model, with pooling and a linear layer to 1000 classes behind `x`."""
        x = self.node("Flatten", [self.node("GlobalAveragePool", [x], "pool")], "flat")
        weight = self.weight(self.random.standard_normal((1000, channels)) * channels**-0.5, "head.weight")
        self.node("Gemm", [x, weight, self.weight(np.zeros(1000), "head.bias")], "logits", transB=1)
        graph = helper.make_graph(
            self.nodes, name, [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, size, size])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 1000])], self.weights,
        )  # fmt: skip
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        return model


def resnet18(seed: int = 0, size: int = 224, fold: bool = False) -> onnx.ModelProto:
    """The model: "image" float [batch, 3, size, size] -> "logits" float [batch, 1000]."""
    net = Network(seed, fold)
    x = net.node("Relu", [net.conv_norm("image", "stem", (3, 64), 7, 2)], "stem.relu")
    x = net.node("MaxPool", [x], "stem.pool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    channels = 64
    for stage, width in enumerate(WIDTHS):
        for index in range(2):
            x = net.block(x, f"stage{stage}.{index}", (channels, width), 2 if stage and not index else 1)
            channels = width
    return net.classify(x, "resnet18", channels, size)


def images(count: int, size: int = 224, seed: int = 1) -> np.ndarray:
    """Smoothed noise, float32 [count, 3, size, size]."""
    coarse = np.random.default_rng(seed).standard_normal((count, 3, size // 8, size // 8))
    return np.kron(coarse, np.ones((1, 1, 8, 8))).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--fold", action="store_true", help="BatchNormalization folded into the convolutions")
    parser.add_argument("--calibration", type=Path, help="also write 16 images here")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    onnx.save(resnet18(given.seed, fold=given.fold), given.out)
    if given.calibration:
        np.savez_compressed(given.calibration, image=images(16))


if __name__ == "__main__":
    main()
