"""Latency of bundles on another machine, by that machine's own clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from deburr.ir.errors import DeburrError
from deburr.ir.types import Array
from deburr.measure import Measurement, Timing
from deburr.runner import batch_size, check_inputs
from deburr.synthetic import random_inputs


def bench(
    paths: Sequence[str | Path],
    device: str,
    *,
    threads: int | None = None,
    data: Mapping[str, Array] | None = None,
    batch: int = 1,
    rounds: int = 20,
    seed: int = 0,
    progress: Callable[[Iterator[str | Path], int, str], Iterator[str | Path]] | None = None,
) -> Measurement:
    """Time bundles on a device, one after the other: `rounds` calls each, after one that does not count.

    :param device: as `find_device` takes it.
    :raises DeburrError: E901 for an unknown device or for what is no bundle, and what the device says.
    """
    from deburr.targets.device.program import DeviceProgram, find_device

    found = find_device(device)
    for path in paths:
        if not Path(path).is_dir():
            raise DeburrError("E901", "not a bundle", where=str(path), why="a device runs bundles", hint="`deburr compile` it")
    programs = [DeviceProgram(path, found, threads) for path in paths]
    rows: list[Timing] = []
    turns = iter(paths)
    for path, program in zip(progress(turns, len(paths), "timing") if progress else turns, programs, strict=True):
        fixed = batch_size(program.inputs)
        inputs = data and {name: array[:batch] for name, array in data.items() if name in program.inputs}
        given = inputs or random_inputs(program.inputs, fixed or batch, seed)
        check_inputs(program.inputs, given)
        times = program.measure(given, calls=rounds + 1)[1][1:]
        p50, p90 = (float(figure) for figure in np.percentile(times, [50, 90]))
        first = rows[0].p50_ms if rows else p50
        rows.append(Timing(Path(path).name, f"deburr on {device}", str(path), p50, p90, p50 / first, len(times)))
    source = "given" if data is not None else f"random (seed {seed})"
    return Measurement(threads or 0, rounds, batch, source, tuple(rows))
