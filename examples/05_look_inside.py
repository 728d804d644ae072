"""The IR: walk over nodes and values, print the text, and capture what flows between two nodes."""

from pathlib import Path

import numpy as np

import deburr
from deburr.ir.evaluate import Evaluator
from deburr.ir.text import print_model

here = Path(__file__).parent / "fashion_mnist"

model = deburr.load(here / "model.onnx")
print(*print_model(model).splitlines()[:5], sep="\n")

activations = [node.output().name for node in model.graph.nodes if node.op == "Relu"]
with np.load(here / "calibration.npz") as calibration:
    captured = Evaluator(model, capture=activations).run({"image": calibration["image"][:100]})
for name in activations:
    value = model.graph.value(name)
    print(f"{name:28} {value.type}  0..{captured[name].max():.2f}  read by {', '.join(node.op for node in value.consumers)}")
