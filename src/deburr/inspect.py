"""What `deburr inspect` shows: a summary, cost per node, channel groups, the text. Each view is a table, not yet printed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deburr.ir.model import Model


@dataclass(frozen=True)
class Table:
    """A titled table; the first `left` columns hold text, the others numbers."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[Any, ...]]
    left: int = 1

    def to_json(self) -> list[dict[str, Any]]:
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


@dataclass(frozen=True, slots=True)
class Size:
    """How much a model computes and holds; `macs` are multiply-accumulates per sample."""

    parameters: int
    macs: int
    nodes: int


def size(model: Model) -> Size:
    """Totals over the model."""
    from deburr.passes.analysis.cost import cost as analyze
    from deburr.passes.core import Context

    found = Context(model).analysis(analyze, model.graph)
    return Size(found.parameters, found.total_macs, sum(len(graph) for graph in model.graphs))


def summary(model: Model, path: str | Path = "") -> Table:
    """The model at a glance."""
    graph, total = model.graph, size(model)
    operators = Counter(f"{node.domain}.{node.op}" if node.domain else node.op for one in model.graphs for node in one.nodes)
    rows: list[tuple[str, Any]] = [
        *(("input", repr(value).lstrip("%")) for value in graph.inputs),
        *(("output", repr(value).lstrip("%")) for value in graph.outputs),
        ("opsets", ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in model.opset_imports.items())),
        ("producer", " ".join(filter(None, model.producer)) or "unknown"),
        ("parameters", total.parameters),
        ("MACs per sample", total.macs),
        ("nodes", total.nodes),
        ("operators", ", ".join(f"{count} {name}" for name, count in operators.most_common())),
    ]
    return Table(str(path) or graph.name, ("what", "found"), rows, left=2)


def cost(model: Model) -> Table:
    """The nodes that multiply, in order."""
    from deburr.passes.analysis.cost import cost as analyze
    from deburr.passes.core import Context

    found = Context(model).analysis(analyze, model.graph)
    total = found.total_macs or 1
    rows = [(node.op, node.output().name, macs, f"{macs / total:.1%}") for node, macs in found.macs.items()]
    return Table("cost", ("operator", "output", "MACs per sample", "share"), rows, left=2)


def groups(model: Model) -> list[Table]:
    """Channels that go together, and axes that keep all of theirs, with the reason."""
    from deburr.passes.analysis.channels import channels
    from deburr.passes.core import Context

    found = Context(model).analysis(channels, model.graph)
    rows = [
        (
            group.name, _first(f"{member.value.name}:{member.axis}" for member in group.members),
            "; ".join(dict.fromkeys(frozen.reason for frozen in group.frozen)) or "-", group.size, group.macs,
        )
        for group in found.groups
    ]  # fmt: skip
    frozen = [(f"{one.value.name}:{one.axis}", one.reason) for one in found.frozen]
    return [
        Table("channel groups", ("group", "axes", "frozen because", "channels", "MACs per sample"), rows, left=3),
        Table("frozen axes", ("axis", "because"), frozen, left=2),
    ]


def text(model: Model) -> str:
    """The model as text, weights by their hash."""
    from deburr.ir.text import print_model

    return print_model(model)


def _first(names: Iterable[str], shown: int = 2) -> str:
    """The first of many names, and how many more there are."""
    every = list(names)
    return ", ".join(every[:shown]) + (f" and {len(every) - shown} more" if len(every) > shown else "")
