"""Make a trained model smaller: load, optimize by a recipe with calibration data, save."""

import tempfile
from pathlib import Path

import deburr

here = Path(__file__).parent / "fashion_mnist"

with tempfile.TemporaryDirectory() as folder:
    model = deburr.load(here / "model.onnx")
    small = deburr.optimize(model, "int8", data=here / "calibration.npz", seed=0)
    deburr.save(small, Path(folder) / "small.onnx")

    before, after = (path.stat().st_size for path in (here / "model.onnx", Path(folder) / "small.onnx"))
    print(f"{before} bytes became {after}: {before / after:.1f}x smaller")
