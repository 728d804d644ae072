"""A quantizer that people use today, run on one model: a program of its own, so that its time and memory are its own.

    python quantization_peers.py {onnxruntime-minmax,onnxruntime-percentile,nncf} MODEL.onnx CALIBRATION.npz OUT.onnx

ONNX Runtime: quant_pre_process, then quantize_static with QDQ, u8 activations, s8 weights per channel. NNCF: nncf.quantize with
its sequential bias correction (fast_bias_correction=False). Needs nothing of deburr.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np


def onnxruntime(model: Path, batches: Iterable[dict[str, np.ndarray]], out: Path, **options: Any) -> None:
    """:param options: of quantize_static, by name; those of its enumerations as text (calibrate_method="MinMax")."""
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = iter(batches)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.batches, None)

    kinds = {"activation_type": "QuantType", "weight_type": "QuantType", "calibrate_method": "CalibrationMethod"}
    wanted = {"activation_type": "QUInt8", "weight_type": "QInt8", **options}
    wanted = {name: quantization.__dict__[kinds[name]][one] if name in kinds else one for name, one in wanted.items()}
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)  # that needs sympy
        quantization.quantize_static(str(prepared), str(out), Reader(), per_channel=True, **wanted)


def one_by_one(data: dict[str, np.ndarray]) -> Iterable[dict[str, np.ndarray]]:
    """Batches of one sample."""
    return [{name: array[i : i + 1] for name, array in data.items()} for i in range(len(next(iter(data.values()))))]


def nncf(model: Path, data: dict[str, np.ndarray], out: Path) -> None:
    import nncf as peer
    import onnx

    samples = list(one_by_one(data))
    made: Any = peer.quantize(
        onnx.load(model), peer.Dataset(samples), subset_size=len(samples), fast_bias_correction=False,
        preset=peer.QuantizationPreset.MIXED,
    )  # fmt: skip
    onnx.save(made, out)


PEERS = {
    "onnxruntime-minmax": lambda model, data, out: onnxruntime(model, one_by_one(data), out),
    "onnxruntime-percentile": lambda model, data, out: onnxruntime(model, one_by_one(data), out, calibrate_method="Percentile"),
    "nncf": nncf,
}


if __name__ == "__main__":
    name, model, calibration, out = sys.argv[1:]
    with np.load(calibration) as archive:
        PEERS[name](Path(model), {key: archive[key] for key in archive.files if key != "labels"}, Path(out))
