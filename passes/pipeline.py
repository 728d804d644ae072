"""Pipelines as values, and their text form, which round-trips.

    pipeline = item ("," item)*
    item     = PASS ["{" option ("," option)* "}"] | RECIPE | nested
    nested   = "repeat" "<" N ">" "(" pipeline ")" | "fixpoint" ["<" N ">"] "(" pipeline ")"
    option   = NAME "=" value
    value    = WORD | "quoted string" | "(" [value ("," value)*] ")"

Blanks and line ends are free, `#` starts a comment, and `@FILE` stands for the text in a file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from deburr.passes.core import Pass

FIXPOINT_LIMIT = 20


@dataclass(frozen=True, slots=True)
class Repeat:
    """`body`, `count` times."""

    count: int
    body: Pipeline

    def __str__(self) -> str:
        return f"repeat<{self.count}>({self.body})"


@dataclass(frozen=True, slots=True)
class Fixpoint:
    """`body` until it changes nothing, measured by the model's revision, and at most `limit` times."""

    body: Pipeline
    limit: int = FIXPOINT_LIMIT

    def __str__(self) -> str:
        return f"fixpoint({self.body})" if self.limit == FIXPOINT_LIMIT else f"fixpoint<{self.limit}>({self.body})"


@dataclass(frozen=True, slots=True)
class Recipe:
    """A named pipeline. Its text is its name; `body` is what it stood for when the text was read."""

    name: str
    body: Pipeline

    def __str__(self) -> str:
        return self.name


Item = Pass | Repeat | Fixpoint | Recipe


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Passes in order, with nesting."""

    items: tuple[Item, ...] = ()

    @property
    def passes(self) -> Iterator[Pass]:
        """Every pass as it is written, recipes expanded, the body of a repetition once."""
        for item in self.items:
            if isinstance(item, Pass):
                yield item
            else:
                yield from item.body.passes

    def expanded(self) -> Pipeline:
        """The same pipeline without the names of recipes."""
        found: list[Item] = []
        for item in self.items:
            if isinstance(item, Recipe):
                found += item.body.expanded().items
            elif isinstance(item, Repeat):
                found.append(Repeat(item.count, item.body.expanded()))
            elif isinstance(item, Fixpoint):
                found.append(Fixpoint(item.body.expanded(), item.limit))
            else:
                found.append(item)
        return Pipeline(tuple(found))

    def __str__(self) -> str:
        return ",".join(map(str, self.items))


def parse(text: str) -> Pipeline:
    """The pipeline that `text` writes, its passes and recipes looked up in the registry.

    :raises DeburrError: E201 for the grammar, E202 for an unknown pass or recipe, E203 for an unknown option or a value that
        it does not take; all are `deburr.passes.parser.PipelineError` with the place in the text.
    """
    from deburr.passes.parser import Parser, read_source

    return Parser(*read_source(text)).pipeline()
