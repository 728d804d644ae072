"""How long a model takes on a target: what the latency budget of `prune-channels` asks."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from deburr.ir.model import Model
from deburr.ir.types import Shape
from deburr.measure import Candidate, bench
from deburr.targets.target import find

_ROUNDS = 7
Signature = tuple[tuple[str, tuple[Shape | None, ...]], ...]


def stopwatch(target: str, seed: int = 0) -> Callable[[Model], float]:
    """A function of a model: its median latency in milliseconds for one sample, on all cores of `target`.

    The model is compiled to a temporary bundle and timed in a process of its own. Models of the same sizes are timed once, as
    their weights make no difference to dense kernels. Calling it raises what `compile` and `bench` raise; E503 where the
    target is not this machine.
    """
    known: dict[Signature, float] = {}

    def latency(model: Model) -> float:
        key = signature(model)
        if key not in known:
            known[key] = _time(model, target, seed)
        return known[key]

    return latency


def signature(model: Model) -> Signature:
    """The operators in order and the shapes of all that they read and write."""
    return tuple(
        (node.op, tuple(value.shape for value in (*node.inputs, *node.outputs) if value is not None))
        for node in model.graph.nodes
    )


def _time(model: Model, target: str, seed: int) -> float:
    from deburr.targets.compile import compile as lower

    with tempfile.TemporaryDirectory(prefix="deburr-latency-") as folder:
        path = Path(folder) / "candidate.bundle"
        lower(model, path, target=find(target), seed=seed, check=False)
        return bench([Candidate("candidate", "deburr", path)], rounds=_ROUNDS, seed=seed).rows[0].p50_ms
