"""Compile a model to machine code, open the bundle on two threads and run it: no ONNX and no ONNX Runtime from there on."""

import tempfile
from pathlib import Path

import numpy as np

import deburr

here = Path(__file__).parent / "fashion_mnist"

with tempfile.TemporaryDirectory() as folder, np.load(here / "evaluation.npz") as evaluation:
    int8 = deburr.optimize(here / "model.onnx", "int8", data=here / "calibration.npz")
    deburr.compile(int8, Path(folder) / "int8.bundle", target="host")

    program = deburr.open(Path(folder) / "int8.bundle", threads=2)
    image, label = evaluation["image"][:1], evaluation["labels"][0]
    logits = program.run({"image": image})["logits"]
    print(f"the first test image is a {label}, the program says {logits.argmax()}")
