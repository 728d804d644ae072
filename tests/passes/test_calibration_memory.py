"""Calibration needs as much memory for many samples as for few."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from models import Builder

# The process measures itself. VmHWM and not ru_maxrss: that one counts what the parent had when it forked.
CALIBRATE = """
import sys
import deburr
for observer in sys.argv[3:]:
    deburr.optimize(sys.argv[1], "clean,calibrate{observer=%s}" % observer, data=sys.argv[2])
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def convolutions() -> onnx.ModelProto:
    """Three convolutions on images of 224x224, pooled into Gemm."""
    builder, x = Builder(), "x"
    for before, after in ((3, 16), (16, 32), (32, 64)):
        x = builder.node("Relu", [builder.conv(x, before, after, strides=[2, 2])])
    builder.gemm(builder.node("Flatten", [builder.node("GlobalAveragePool", [x])]), 64, 10, "y")
    return builder.model({"x": ["batch", 3, 224, 224]}, {"y": ["batch", 10]})


def peak(model: Path, data: Path, *observers: str) -> int:
    """Kilobytes of resident memory at most; the less of two runs, because a busy machine keeps threads' garbage longer."""
    command = [sys.executable, "-c", CALIBRATE, str(model), str(data), *observers]
    return min(int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(2))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_peak_memory_does_not_grow_with_the_samples(save, tmp_path) -> None:
    """512 images are 308 MB, 32 are 19 MB."""
    onnx.save(convolutions(), tmp_path / "model.onnx")
    peaks = {}
    image = np.random.default_rng(0).standard_normal((32, 3, 224, 224)).astype(np.float32)
    for count in (32, 512):
        save(tmp_path / "data.npz", x=np.concatenate([image] * (count // 32)))
        peaks[count] = peak(tmp_path / "model.onnx", tmp_path / "data.npz", "percentile", "entropy", "output-weighted")
    assert peaks[512] <= peaks[32] * 1.1, peaks
