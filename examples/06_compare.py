"""How much did it cost? Signal to noise, top-1 agreement and accuracy of a quantized model against the original."""

from pathlib import Path

import numpy as np

import deburr
from deburr.compare import compare

here = Path(__file__).parent / "fashion_mnist"

original = deburr.load(here / "model.onnx")
int8 = deburr.optimize(original, "int8", data=here / "calibration.npz")
with np.load(here / "evaluation.npz") as evaluation:
    data = {name: array[:500] for name, array in evaluation.items()}
logits = compare(original, int8, data).outputs[0]
print(f"SQNR {logits.sqnr_db:.1f} dB, the same class for {logits.top1_agreement:.2%} of the images")
print(f"accuracy {logits.reference_accuracy:.2%} became {logits.candidate_accuracy:.2%}")
