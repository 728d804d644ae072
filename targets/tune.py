"""Tuning a lowered model: its distinct workloads, what the records know about them, and a search if there is time."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from deburr.ir.errors import DeburrError
from deburr.ir.model import Model
from deburr.targets.device.program import find_device
from deburr.targets.features import architecture_here, missing_here
from deburr.targets.kernels.workload import Workload
from deburr.targets.lower import dialect
from deburr.targets.lower.workloads import workload
from deburr.targets.records import Records, Setting, default_path
from deburr.targets.schedules.tile import ConvSchedule
from deburr.targets.target import Target
from deburr.targets.tuning.measuring import WorkerMeasure
from deburr.targets.tuning.protocol import Fleet
from deburr.targets.tuning.tuner import Status, Tuner


@dataclass(frozen=True)
class Request:
    """What was asked for.

    :param seconds: to search in all; what the records say was spent on this model counts. 0: only read the records.
    :param records: the log; None is the one in the user's cache folder where `seconds` is given, and none where not.
    :param report: called after each trial.
    :param device: where kernels are timed, as `find_device` takes it; None: here.
    """

    seconds: float = 0
    records: str | Path | None = None
    device: str | None = None
    report: Callable[[Status], None] | None = None


def tuned_schedules(
    models: Iterable[Model], target: Target, threads: int, request: Request, seed: int = 0
) -> dict[str, ConvSchedule]:
    """The chosen schedules by the text of the representative workload. An interrupt ends the search and keeps its results.

    :param models: the lowered model for each batch size.

    :raises DeburrError: E503 where a search was asked for a target that this machine cannot run, or the device; E505 where the
        device is out of reach, E901 where it times nothing; E101 or E109 for the records.
    """
    if not request.seconds and request.records is None:
        return {}
    records = Records(request.records or default_path(), Setting.of(target, threads))
    tuner = Tuner(workloads(models), target, records, seed)
    if tuner.wants(request.seconds):
        with _fleet(target, threads, request.device) as fleet, contextlib.suppress(KeyboardInterrupt):
            tuner.search(fleet, request.seconds, request.report)
    if request.report is not None and request.seconds:
        request.report(tuner.status(request.seconds))
    return tuner.choices()


def workloads(models: Iterable[Model]) -> Mapping[Workload, int]:
    """The workloads of lowered models, and how many nodes have each."""
    nodes = (node for model in models for node in model.graph.nodes if node.domain == dialect.DOMAIN)
    return Counter(filter(None, map(workload, nodes)))


@contextlib.contextmanager
def _fleet(target: Target, threads: int, device: str | None) -> Iterator[Fleet]:
    """What measures: a worker for this machine, or one for each board of a device."""
    missing = missing_here(target.instruction_sets()) if device is None else ()
    if missing or (device is None and target.architecture != architecture_here()):
        raise DeburrError(
            "E503", "cannot tune for another machine", where=f"target {target.name!r}",
            why=f"this CPU lacks {', '.join(missing)}",
            hint="name one with --device; or tune on that machine, and bring its records here",
        )  # fmt: skip
    links = [None] if device is None else find_device(device).links(target)
    with contextlib.ExitStack() as stack:
        yield Fleet([stack.enter_context(WorkerMeasure(target, threads, link=link)) for link in links])
