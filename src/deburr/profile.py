"""Where a bundle's time goes: each fused group with its time, its rate, and its share of what the machine can do."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deburr.ir.errors import DeburrError
from deburr.ir.types import Array
from deburr.measure import Candidate, WorkerProcess, default_threads, write_feed
from deburr.targets.groups import WINOGRAD
from deburr.targets.lower.dialect import UNTEMPLATED

WORTH_A_REMARK = 0.05  # of the time, outside the templates
OURS, BOOKKEEPING = "deburr_", "vm."
TVMS = "TVM's own"
_NUMBER = re.compile(r"_?\d+$")  # that TVM puts behind equal names


@dataclass(frozen=True, slots=True)
class Row:
    """One function of the program, in the order of calls.

    :param us: the median over all runs, in microseconds.
    :param share: of the whole run's time.
    :param gmacs: 10⁹ multiply-accumulates a second; None where it has none.
    :param of_ceiling: `gmacs` relative to what this machine does with bare instructions of that type.
    """

    layer: str
    operator: str
    shape: str
    us: float
    share: float
    gmacs: float | None = None
    of_ceiling: float | None = None


@dataclass(frozen=True, slots=True)
class Profile:
    """Of one program.

    :param batch: samples per run.
    :param ceilings: multiply-accumulates a second that the machine can do, by the type of the activations.
    """

    bundle: str
    threads: int
    batch: int
    runs: int
    inputs: str
    total_us: float
    ceilings: Mapping[str, float]
    rows: tuple[Row, ...]
    remarks: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def profile(
    bundle: Path,
    *,
    threads: int | None = None,
    data: Mapping[str, Array] | None = None,
    batch: int | None = None,
    runs: int = 50,
    seed: int = 0,
) -> Profile:
    """Run a bundle `runs` times in a process of its own, with a watch on every function.

    :param data: arrays by input name, of which the first samples are used; None for random ones.
    :param batch: which of the bundle's programs; None for the smallest.
    :raises DeburrError: as `deburr.measure.bench`; E901 for what is no bundle or for a batch that it has no program for, E502
        where it does not call what it says.
    """
    if not bundle.is_dir():
        raise DeburrError("E901", "only a bundle has a profile", where=str(bundle), hint="compile the model first")
    from deburr.targets.manifest import read

    batch = _batch(batch, [program.batch for program in read(bundle).programs])
    candidate = Candidate(bundle.name, "deburr", bundle.resolve())
    with contextlib.ExitStack() as stack:
        feed = write_feed(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="deburr-profile-"))), data, batch)
        worker = stack.enter_context(WorkerProcess(candidate, threads or default_threads()))
        worker.ask("prepare", inputs=feed, batch=batch, seed=seed, warmup=5)
        found = worker.ask("profile", calls=runs, batch=batch)
    inputs = "given" if data is not None else f"random (seed {seed})"
    return _profile(str(bundle), inputs, found)


def _batch(wanted: int | None, sizes: Sequence[int]) -> int:
    if wanted is not None and wanted not in sizes:
        raise DeburrError(
            "E901", "a profile is of one program", where=f"batch {wanted}",
            why=f"the bundle has one for {' and for '.join(map(str, sizes))}",
        )  # fmt: skip
    return sizes[0] if wanted is None else wanted


def _profile(bundle: str, inputs: str, found: Mapping[str, Any]) -> Profile:
    names = [name for name, _ in found["runs"][0]]
    times = np.array([[seconds for _, seconds in run] for run in found["runs"]])
    medians = np.median(times, axis=0)
    # The sum of medians and not the median of sums: shares then come to one.
    total = float(medians.sum())
    groups = iter(_matched(bundle, names, found["groups"]))
    rows, bookkeeping = [], 0.0
    for name, seconds in zip(names, map(float, medians), strict=True):
        if name.startswith(BOOKKEEPING):
            bookkeeping += seconds
        elif name.startswith(OURS):
            rows.append(_row(next(groups), seconds, total, found["ceilings"]))
        else:
            rows.append(Row(name, TVMS, "", seconds * 1e6, seconds / total))
    rows.append(Row("between groups", "", "", bookkeeping * 1e6, bookkeeping / total))
    return Profile(
        bundle, found["threads"], found["batch"], len(times), inputs, total * 1e6, found["ceilings"], tuple(rows),
        _remarks(rows, found["remarks"]),
    )  # fmt: skip


def _matched(bundle: str, names: Sequence[str], groups: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """The manifest's groups, which are to be the calls of our functions, in the same order."""
    called = [name.removeprefix(OURS).rsplit("_", 1)[0] for name in names if name.startswith(OURS)]
    if called != [group["operator"].lower() for group in groups]:
        raise DeburrError(
            "E502", "the program does not call what its manifest says", where=bundle,
            why=f"it calls {len(called)} functions, the manifest has {len(groups)}", hint="compile it again",
        )  # fmt: skip
    return groups


def _row(group: Mapping[str, Any], seconds: float, total: float, ceilings: Mapping[str, float]) -> Row:
    rate = group["macs"] / seconds if group["macs"] else None
    return Row(
        group["layer"], group["operator"], group["shape"], seconds * 1e6, seconds / total,
        None if rate is None else rate / 1e9, None if rate is None else rate / ceilings[group["dtype"]],
    )  # fmt: skip


def _remarks(rows: Sequence[Row], compiling: Sequence[str]) -> tuple[str, ...]:
    """Operators without a template that take long, all their calls together, and what the compiler said of their like."""
    calls: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        if row.operator == TVMS:
            calls.setdefault((_NUMBER.sub("", row.layer), "compiled by TVM's own converter"), []).append(row.share)
        elif row.operator in UNTEMPLATED:
            calls.setdefault((row.operator, "scheduled by the default"), []).append(row.share)
    slow = {key: shares for key, shares in calls.items() if sum(shares) > WORTH_A_REMARK}
    remarks = [
        f"{name}: {sum(shares):.0%} of the time in {len(shares)} {'call' if len(shares) == 1 else 'calls'}, {how}: it has no "
        "template"
        for (name, how), shares in slow.items()
    ]
    if any(WINOGRAD in row.shape for row in rows):
        remarks.append(f"{WINOGRAD}: its rate counts what the plain convolution would multiply, so it may pass the ceiling")
    return (*remarks, *(text for text in compiling if slow and "TVM's own converter" in text))
