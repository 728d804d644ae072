"""From pipeline text to a `Pipeline`; the grammar stands in `deburr.passes.pipeline`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from deburr.ir.errors import DeburrError
from deburr.passes import registry
from deburr.passes.core import Pass
from deburr.passes.options import QUOTED, WORD, Raw, Word, option_types, print_value, quoted, read_value, type_name
from deburr.passes.pipeline import FIXPOINT_LIMIT, Fixpoint, Item, Pipeline, Recipe, Repeat

_TOKEN = re.compile(rf"(?P<blank>\s+|#[^\n]*)|(?P<quoted>{QUOTED})|(?P<word>{WORD})|(?P<mark>.)")
_DEEPEST = 50  # nesting that a person may write; far below Python's own limit


class PipelineError(DeburrError):
    """An error at a place of the text. `excerpt` is two lines: the line of the text, and a caret under the place."""

    text = ""
    offset = 0

    @property
    def excerpt(self) -> str:
        start = self.text.rfind("\n", 0, self.offset) + 1
        line = self.text[start:].split("\n", 1)[0]
        return f"{line}\n{' ' * (self.offset - start)}^"


@dataclass(frozen=True, slots=True)
class Token:
    kind: str  # quoted, word, mark or end
    text: str
    offset: int


def read_source(text: str) -> tuple[str, str]:
    """The pipeline's text and the name of where it stands: `@FILE` is read from the file.

    :raises DeburrError: E201 if the file cannot be read.
    """
    if not text.strip().startswith("@"):
        return text, "the pipeline"
    path = Path(text.strip()[1:])
    try:
        return path.read_text(encoding="utf-8"), str(path)
    except (OSError, UnicodeDecodeError) as error:
        raise DeburrError("E201", "the pipeline's file cannot be read", where=str(path), why=str(error)) from error


class Parser:
    """Reads one text. `recipes` are the names that are being expanded around it."""

    def __init__(self, text: str, source: str = "the pipeline", recipes: tuple[str, ...] = ()) -> None:
        self._text, self._source, self._recipes = text, source, recipes
        self._tokens = list(_tokens(text))
        self._index = self._depth = 0

    def pipeline(self) -> Pipeline:
        """The whole text.

        :raises PipelineError: E201, E202, E203.
        """
        found = self._items("end")
        if self._peek.kind != "end":
            self._expected("',' or the end of the text")
        return found

    # the grammar

    def _items(self, closing: str) -> Pipeline:
        if closing in (self._peek.kind, self._peek.text):
            return Pipeline()
        items = [self._item()]
        while self._accept(","):
            items.append(self._item())
        return Pipeline(tuple(items))

    def _item(self) -> Item:
        name = self._word("the name of a pass")
        if name.text == "repeat":
            self._expect("<")
            count = self._count()
            return Repeat(count, self._body())
        if name.text == "fixpoint":
            limit = self._count() if self._accept("<") else FIXPOINT_LIMIT
            return Fixpoint(self._body(), limit)
        if name.text not in registry.passes().names and name.text in registry.recipes().names:
            return self._recipe(name)
        return self._pass(name)

    def _body(self) -> Pipeline:
        self._enter()
        self._expect("(")
        body = self._items(")")
        self._expect(")")
        self._depth -= 1
        return body

    def _enter(self) -> None:
        self._depth += 1
        if self._depth > _DEEPEST:
            self._fail("E201", self._peek, "the pipeline does not parse", f"it is nested deeper than {_DEEPEST}")

    def _count(self) -> int:
        token = self._word("a number of times")
        if not re.fullmatch(r"[1-9]\d{0,8}", token.text):
            self._fail("E201", token, "the pipeline does not parse", "expected a number of times, 1 or more")
        self._expect(">")
        return int(token.text)

    def _recipe(self, name: Token) -> Recipe:
        if self._peek.text == "{":
            body = registry.recipes().find(name.text, "E202", "recipe")
            self._fail("E203", name, f"the recipe {name.text!r} takes no options", hint=f"write its pipeline out: {body}")
        if name.text in self._recipes:
            self._fail("E201", name, f"the recipe {name.text!r} contains itself")
        text = registry.recipes().find(name.text, "E202", "recipe", self._place(name))
        return Recipe(name.text, Parser(text, f"the recipe {name.text!r}", (*self._recipes, name.text)).pipeline())

    def _pass(self, name: Token) -> Pass:
        kind = self._find(name)
        given: dict[str, Any] = {}
        if self._accept("{"):
            self._option(kind, given)
            while self._accept(","):
                self._option(kind, given)
            self._expect("}")
        try:
            return kind(**given)
        except (ValueError, TypeError) as error:  # what a pass's __post_init__ refuses
            self._fail("E203", name, f"{kind.name} does not take these options", str(error))

    def _find(self, name: Token) -> type[Pass]:
        try:
            return registry.passes().find(name.text, "E202", "pass")
        except DeburrError as error:
            if name.text in registry.passes().names:
                self._fail("E202", name, error.what, error.why, error.hint)
            known = (*registry.passes().names, *registry.recipes().names)
            self._fail(
                "E202", name, f"no pass or recipe {name.text!r}", registry.listed(known), registry.nearest(name.text, known)
            )

    def _option(self, kind: type[Pass], given: dict[str, Any]) -> None:
        name = self._word("the name of an option")
        types = option_types(kind)
        if name.text not in types:
            defaults = kind()
            options = tuple(f"{key}={print_value(getattr(defaults, key))}" for key in types)
            why = f"its options are {', '.join(options)}" if options else "it has no options"
            self._fail("E203", name, f"{kind.name} has no option {name.text!r}", why, registry.nearest(name.text, tuple(types)))
        if name.text in given:
            self._fail("E203", name, f"the option {name.text!r} is given twice")
        self._expect("=")
        start = self._peek
        raw, wanted = self._value(), types[name.text]
        try:
            given[name.text] = read_value(raw, wanted)
        except ValueError:
            self._fail("E203", start, f"{kind.name}: {name.text} does not take this", f"it takes {type_name(wanted)}")

    def _value(self) -> Raw:
        token = self._next()
        if token.kind == "word":
            return Word(token.text)
        if token.kind == "quoted":
            try:
                return quoted(token.text)
            except ValueError as error:
                self._fail("E201", token, "the pipeline does not parse", f"wrong string: {error}")
        if token.text != "(":
            self._index -= 1
            self._expected("a value")
        return self._tuple()

    def _tuple(self) -> Raw:
        self._enter()
        items: list[Raw] = []
        while not self._accept(")"):
            items.append(self._value())
            if not self._accept(","):
                self._expect(")")
                break
        self._depth -= 1
        return tuple(items)

    # tokens

    @property
    def _peek(self) -> Token:
        return self._tokens[self._index]

    def _next(self) -> Token:
        token = self._peek
        if token.kind != "end":
            self._index += 1
        return token

    def _accept(self, mark: str) -> bool:
        if self._peek.kind != "mark" or self._peek.text != mark:
            return False
        self._index += 1
        return True

    def _expect(self, mark: str) -> None:
        if not self._accept(mark):
            self._expected(repr(mark))

    def _word(self, meaning: str) -> Token:
        if self._peek.kind != "word":
            self._expected(meaning)
        return self._next()

    # errors

    def _expected(self, meaning: str) -> NoReturn:
        self._fail("E201", self._peek, "the pipeline does not parse", f"expected {meaning}")

    def _place(self, token: Token) -> str:
        before = self._text[: token.offset]
        line, column = before.count("\n") + 1, token.offset - before.rfind("\n")
        place = f"line {line}, column {column}" if "\n" in self._text.strip() else f"column {column}"
        found = repr(token.text) if token.kind != "end" else "the end of the text"
        return f"in {self._source}, at {place}, {found}"

    def _fail(self, code: str, token: Token, what: str, why: str = "", hint: str = "") -> NoReturn:
        error = PipelineError(code, what, where=self._place(token), why=why, hint=hint)
        error.text, error.offset = self._text, token.offset
        raise error


def _tokens(text: str) -> Iterator[Token]:
    for match in _TOKEN.finditer(text):
        kind = str(match.lastgroup)
        if kind != "blank":
            yield Token(kind, match.group(), match.start())
    yield Token("end", "", len(text))
