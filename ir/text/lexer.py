"""The words of the text form, with their places."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import NoReturn

from deburr.ir.errors import DeburrError
from deburr.ir.text.names import VALUE, WORD

_QUOTED = r'"(?:[^"\\\n]|\\.)*"'
_PATTERN = re.compile(
    rf"""(?P<space>\s+|\#[^\n]*)
      |(?P<value>%(?:{VALUE}|{_QUOTED}))
      |(?P<hex>hex"[0-9a-f]*")
      |(?P<string>{_QUOTED})
      |(?P<hash>sha256:[0-9a-f]+)
      |(?P<float>-?(?:\d+\.\d*(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+|(?:inf|nan(?::[0-9a-f]{{8}})?)(?![A-Za-z0-9_.])))
      |(?P<int>-?\d+)
      |(?P<word>{WORD})
      |(?P<sign>\.\.\.|::|[()\[\]{{}}<>=,:?@])""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Token:
    """`kind`: a group of the pattern, or "end". `text` is as written."""

    kind: str
    text: str
    offset: int


class Lexer:
    """The tokens of a text, one by one; every error names line, column and token."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._offset = 0
        self._ahead: Token | None = None
        self.token = self._scan()

    def _scan(self) -> Token:
        while self._offset < len(self._text):
            match = _PATTERN.match(self._text, self._offset)
            if match is None:
                self.fail("no part of the text form starts like this", Token("sign", self._text[self._offset], self._offset))
            self._offset = match.end()
            if match.lastgroup != "space":
                return Token(str(match.lastgroup), match.group(), match.start())
        return Token("end", "the end of the text", len(self._text))

    def fail(self, why: str, at: Token | None = None) -> NoReturn:
        """:raises DeburrError: E107."""
        token = at or self.token
        line = self._text.count("\n", 0, token.offset) + 1
        column = token.offset - self._text.rfind("\n", 0, token.offset)
        shown = token.text if len(token.text) <= 40 else token.text[:40] + "…"
        raise DeburrError("E107", "the text form does not parse", where=f"line {line}, column {column}, at {shown}", why=why)

    def next(self) -> Token:
        token = self.token
        self.token, self._ahead = self._ahead or self._scan(), None
        return token

    @property
    def peek(self) -> Token:
        """The token behind the next one."""
        self._ahead = self._ahead or self._scan()
        return self._ahead

    def accept(self, *texts: str) -> bool:
        """Step over the next token if it is one of these signs or words."""
        found = self.token.kind in ("sign", "word") and self.token.text in texts
        if found:
            self.next()
        return found

    def expect(self, text: str) -> None:
        if not self.accept(text):
            self.fail(f"expected {text!r}")

    def take(self, kind: str, what: str) -> Token:
        """The next token, which must be of this kind.

        :param what: how the error calls it.
        """
        if self.token.kind != kind:
            self.fail(f"expected {what}")
        return self.next()

    def integer(self, what: str = "an integer") -> int:
        token = self.take("int", what)
        if len(token.text) > 20 or not -(1 << 63) <= int(token.text) < 1 << 63:
            self.fail("the number does not fit into 64 bits", token)
        return int(token.text)

    def string(self) -> str:
        return self.unquoted(self.take("string", "a string"))

    def raw_bytes(self) -> bytes:
        return self.unhexed(self.take("hex", 'bytes, as hex"…"'))

    def string_or_bytes(self) -> str | bytes:
        return self.raw_bytes() if self.token.kind == "hex" else self.string()

    def word(self, what: str) -> str:
        """A name, bare or quoted."""
        return self.string() if self.token.kind == "string" else self.take("word", what).text

    def value(self) -> str:
        """The name behind a %."""
        token = self.take("value", "a value, as %name")
        return self.unquoted(token, 1) if token.text[1] == '"' else token.text[1:]

    def unquoted(self, token: Token, start: int = 0) -> str:
        try:
            text = str(json.loads(token.text[start:]))
            text.encode()
        except ValueError:
            self.fail("the string holds an escape that is none", token)
        return text

    def unhexed(self, token: Token) -> bytes:
        digits = token.text[4:-1]
        if len(digits) % 2:
            self.fail("an odd number of hexadecimal digits", token)
        return bytes.fromhex(digits)
