"""A bundle against itself: on one thread and on more, with one sample a call and with more, interleaved in one run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from deburr.measure import Candidate, bench

COLUMNS = {
    "model": "", "precision": "", "program": "", "one_thread_ms": ".2f", "p50_ms": ".2f", "scaling": ".2f", "batch_ms": ".2f",
    "batch_ratio": ".2f",
}  # fmt: skip


def against_itself(
    bundle: Path, *, threads: int, batch: int | None, samples: Mapping[str, np.ndarray], rounds: int
) -> dict[str, Any]:
    """Medians in milliseconds, and their ratios.

    `scaling` is the time on one thread over the time on `threads`, `batch_ratio` that of `batch` samples over that of one.

    :param batch: None: only threads are compared.
    """
    entries = {
        "one_thread_ms": Candidate("one thread", "deburr", bundle, threads=1),
        "p50_ms": Candidate("all threads", "deburr", bundle),
    }
    if batch is not None:
        entries["batch_ms"] = Candidate(f"{batch} samples", "deburr", bundle, batch=batch)
    data = {name: np.resize(array, (batch or 1, *array.shape[1:])) for name, array in samples.items()}
    measured = bench(list(entries.values()), threads=threads, rounds=rounds, data=data)
    found: dict[str, Any] = {key: row.p50_ms for key, row in zip(entries, measured.rows, strict=True)}
    found["scaling"] = found["one_thread_ms"] / found["p50_ms"]
    if batch is not None:
        found |= {"batch": batch, "batch_ratio": found["batch_ms"] / found["p50_ms"]}
    return found
