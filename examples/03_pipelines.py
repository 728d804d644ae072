"""A pipeline is a value: written as text, parsed, looked at, printed again; the passes say what they left alone, and why."""

from pathlib import Path

import deburr
from deburr.passes.pipeline import parse

here = Path(__file__).parent / "fashion_mnist"

pipeline = parse("clean, prune-channels{ratio=0.25}  # blanks and comments are free")
print("text:    ", pipeline)
print("expanded:", pipeline.expanded())

remarks = []
deburr.optimize(here / "model.onnx", pipeline, remarks=remarks)
for remark in remarks:
    print("remark:  ", remark)
