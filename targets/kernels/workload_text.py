"""Workloads as text: what a log can hold and another process can read, and what two workloads share that cost the same."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from functools import cache
from typing import Any

from deburr.targets.kernels import workload as w

_KINDS = {
    kind.__name__: kind for kind in (w.Conv2d, w.MatMul, w.Pool2d, w.Rows, w.Add, w.Quantize, w.Dequantize, w.ChangeLayout)
}


def to_text(workload: w.Workload) -> str:
    """One line of JSON, the same for equal workloads; and for those that older logs knew."""
    fields = asdict(workload)
    if not fields.get("half", True):
        del fields["half"]
    return json.dumps({"op": type(workload).__name__, **fields}, sort_keys=True)


def from_text(text: str) -> w.Workload:
    """The workload that `to_text` wrote.

    :raises ValueError: where the text is none (pydantic's error is one).
    """
    fields = json.loads(text)
    kind = fields.pop("op", None) if isinstance(fields, dict) else None
    if kind not in _KINDS:
        raise ValueError(f"no workload: {text[:80]}")
    workload: w.Workload = _adapter(kind).validate_python(fields)
    return workload


def representative(workload: w.Workload) -> w.Workload:
    """The workload with fixed quantization parameters: they decide what comes out, never how long it takes.

    Layers of equal sizes share their tuning through it, and so do models that differ in their calibration only.
    """
    if isinstance(workload, w.Conv2d):
        requantize = None if workload.requantize is None else w.Requantize(128)
        add = None if workload.add is None else w.FixedPointAdd(128, 1 << 14, 128, 1 << 14, 15, 128)
        return replace(workload, data_zero_point=0, requantize=requantize, add=add)
    if isinstance(workload, w.Pool2d):
        requantize = None if workload.requantize is None else w.Requantize(128)
        multiplier = 1 / (workload.kernel[0] * workload.kernel[1])
        return replace(workload, data_zero_point=0, multiplier=multiplier, requantize=requantize)
    if isinstance(workload, w.MatMul):
        requantize = None if workload.requantize is None else w.Requantize(128)
        add = None if workload.add is None else w.FixedPointAdd(128, 1 << 14, 128, 1 << 14, 15, 128)
        # A zero point of 0 needs no sums of rows or columns.
        points = {name: min(getattr(workload, name), 1) for name in ("a_zero_point", "b_zero_point")}
        return replace(workload, requantize=requantize, add=add, **points)
    return workload


@cache
def _adapter(kind: str) -> Any:
    import pydantic

    return pydantic.TypeAdapter(_KINDS[kind])
