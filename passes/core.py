"""What a pass is: a frozen dataclass whose fields are its options, and a `run` that edits one graph."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np

from deburr.ir.graph import Graph
from deburr.ir.model import Model
from deburr.ir.node import Node
from deburr.ir.value import Value
from deburr.passes.options import print_options

if TYPE_CHECKING:
    from deburr.ir.samples import Samples
    from deburr.passes.prune.reference import Reference

Item = TypeVar("Item")
Result = TypeVar("Result")
# (items, total, description). A description that is a function gives the current figures: it is asked after every item.
Progress = Callable[[Iterable[Any], int, str | Callable[[], str]], Iterator[Any]]


@dataclass(frozen=True, slots=True)
class Remark:
    """A pass declined to do something: where, why, and what the user could do about it."""

    pass_name: str
    where: str
    reason: str
    hint: str = ""

    def __str__(self) -> str:
        text = ": ".join(filter(None, (self.pass_name, self.where, self.reason)))
        return f"{text} ({self.hint})" if self.hint else text


def _no_progress(items: Iterable[Any], total: int, description: str | Callable[[], str]) -> Iterator[Any]:
    yield from items


def _no_watcher(part: Pass, context: Context) -> None:
    pass


@dataclass
class Context:
    """What a pipeline's passes share: the model, the data, the seed, the remarks, cached analyses.

    :param data: calibration samples, or None.
    :param target: name of the device that the model is meant for, or None.
    :param lanes: elements of a vector of the target, or None where no target is known.
    :param latency: milliseconds that a model takes on the target, measured; None where there is no target to measure on.
    :param progress: wraps an iterable (items, total, description) in a progress bar.
    """

    model: Model
    data: Samples | None = None
    target: str | None = None
    lanes: int | None = None
    latency: Callable[[Model], float] | None = None
    seed: int = 0
    progress: Progress = _no_progress
    work_folder: Path | None = None
    remarks: list[Remark] = field(default_factory=list)
    running: Pass | None = None  # kept by the manager
    original: Model | None = None  # the model as the pipeline got it, kept by the manager where a pass needs it
    reference: Reference | None = None  # the model before the first pruning, kept by prune-channels
    interrupted: Pass | None = None  # the pass that the user ended early, kept by the manager
    before_part: Callable[[Pass, Context], None] = _no_watcher  # a composite pass calls it before each of its parts
    _analyses: dict[tuple[Any, int], tuple[int, Graph, Any]] = field(default_factory=dict)

    def remark(self, where: Node | Value | str, reason: str, hint: str = "") -> None:
        """Say why something was left alone; a repeated remark counts once."""
        place = where if isinstance(where, str) else repr(where)
        remark = Remark(self.running.name if self.running else "", place, reason, hint)
        if remark not in self.remarks:
            self.remarks.append(remark)

    def analysis(self, analyze: Callable[[Graph, Context], Result], graph: Graph) -> Result:
        """The result of `analyze` on `graph` as it stands, computed once per revision of the model."""
        key, revision = (analyze, id(graph)), self.model.revision
        kept = self._analyses.get(key)
        if kept is None or kept[0] != revision or kept[1] is not graph:
            kept = self._analyses[key] = (revision, graph, analyze(graph, self))
        result: Result = kept[2]
        return result

    def adopt(self, other: Context) -> None:
        """Go on with the model of `other`, and with what its channels are known by.

        Both change in one step of the interpreter, so that an interrupt finds the old pair or the new one.
        """
        vars(self).update(model=other.model, reference=other.reference)

    def random(self) -> np.random.Generator:
        """A generator that starts the same for the same seed and pass."""
        name = self.running.name if self.running else ""
        return np.random.default_rng([self.seed, *name.encode()])


@dataclass(frozen=True)
class Pass(ABC):
    """One change to a graph. Subclasses are frozen dataclasses: fields are options, with defaults, and appear in pipeline text.

    The class docstring's first line is what `deburr passes` prints. A pass that declines says so by `context.remark`.
    """

    name: ClassVar[str]  # imperative, kebab-case
    minimum_opset: ClassVar[int] = 1  # the manager raises the model's opset to this first
    main_graph_only: ClassVar[bool] = False  # else the manager also visits subgraphs and functions, innermost first
    needs_data: ClassVar[bool] = False  # refuse to run without calibration samples
    needs_torch: ClassVar[bool] = False  # refuse to run without the extra deburr[train]
    needs_original: ClassVar[bool] = False  # read context.original: the manager keeps a copy of the model as it got it
    idempotent: ClassVar[bool] = True  # a second run changes nothing; False where running it again is meant to go further
    keeps_best: ClassVar[bool] = False  # context.model is whole, and the best so far, all the time: Ctrl-C only ends it early
    tolerance: ClassVar[float | None] = 1e-4  # relative error allowed against the model before; None: changes what is computed

    @abstractmethod
    def run(self, graph: Graph, context: Context) -> None:
        """Edit `graph` in place.

        :raises DeburrError: for what a user can mend.
        """

    @property
    def options(self) -> dict[str, Any]:
        """The fields that differ from their defaults, in order."""
        given = {}
        for option in dataclasses.fields(self):
            value = getattr(self, option.name)
            default = option.default_factory() if option.default_factory is not dataclasses.MISSING else option.default
            if value != default:
                given[option.name] = value
        return given

    def __str__(self) -> str:
        return self.name + print_options(self.options)
