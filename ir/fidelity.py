"""How far outputs are from those that were wanted, as single figures."""

from __future__ import annotations

import math

import numpy as np

from deburr.ir.types import Array


def sqnr_db(signal: Array, error: Array) -> float:
    """Signal to quantization noise ratio in decibel; infinite without error, minus infinite without signal."""
    power, noise = float(np.sum(np.square(signal))), float(np.sum(np.square(error)))
    if noise == 0:
        return math.inf
    return 10 * math.log10(power / noise) if power else -math.inf


def accuracy(scores: Array, labels: Array | None) -> float | None:
    """The share of samples whose highest score stands at the label; None without labels of shape [samples]."""
    if labels is None or labels.shape != scores.shape[:1]:
        return None
    return float(np.mean(scores.argmax(1) == labels))
