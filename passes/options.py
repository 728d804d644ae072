"""Option values as pipeline text writes them, and back by the type of the dataclass field.

`true`, `false`, `none`, numbers, words, "quoted strings" and (tuples, of, these). What a word means is decided by the field:
`3` is 3 for an int, 3.0 for a float and "3" for a str.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import functools
import json
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union

WORD = r'[^\s,{}()<>="#]+'
QUOTED = r'"(?:[^"\\\n]|\\.)*"'
_INTEGER = re.compile(r"[-+]?\d+")
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?|[-+]?inf")


@dataclass(frozen=True, slots=True)
class Word:
    text: str


@dataclass(frozen=True, slots=True)
class Quoted:
    text: str


Raw = Word | Quoted | tuple["Raw", ...]  # a value as it was written


def quoted(token: str) -> Quoted:
    """:raises ValueError: for an escape that JSON does not know."""
    return Quoted(str(json.loads(token)))


def print_value(value: Any) -> str:
    """:raises TypeError: for a value that no option may hold."""
    if isinstance(value, enum.Enum):
        return print_value(value.value)
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float):
        return repr(float(value))
    if isinstance(value, str):
        plain = re.fullmatch(WORD, value) and not _NUMBER.fullmatch(value) and value not in ("true", "false", "none")
        return value if plain else json.dumps(value, ensure_ascii=False)
    if isinstance(value, tuple):
        return f"({','.join(map(print_value, value))})"
    raise TypeError(f"an option cannot hold a {type(value).__name__}")


def print_options(options: Mapping[str, Any]) -> str:
    """`{a=1,b=x}`, or nothing where there are none."""
    return "{" + ",".join(f"{name}={print_value(value)}" for name, value in options.items()) + "}" if options else ""


@functools.cache
def option_types(kind: type[Any]) -> Mapping[str, Any]:
    """The options of a pass: field name -> type.

    :raises TypeError: for a field whose type has no text form.
    """
    hints = typing.get_type_hints(kind)
    found = {option.name: hints[option.name] for option in dataclasses.fields(kind)}
    for name, hint in found.items():
        if not _readable(hint):
            raise TypeError(f"option {name}: a {type_name(hint)} has no text form")
    return found


def type_name(hint: Any) -> str:
    """How a message names the type of an option: `float`, `int or none`, `l1|l2`, …"""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return "|".join(map(print_value, arguments))
    if origin in (Union, types.UnionType):
        return " or ".join(map(type_name, arguments))
    if origin is tuple:
        return f"({','.join('...' if item is Ellipsis else type_name(item) for item in arguments)})"
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return "|".join(print_value(member) for member in hint)
    return "none" if hint is types.NoneType else getattr(hint, "__name__", str(hint))


def read_value(raw: Raw, hint: Any) -> Any:
    """The value of type `hint` that `raw` writes.

    :raises ValueError: if it writes none.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return _read_union(raw, arguments)
    if origin is Literal:
        return _read_choice(raw, {member: member for member in arguments})
    if origin is tuple:
        return _read_tuple(raw, arguments)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return _read_choice(raw, {member.value: member for member in hint})
    return _SCALARS[hint](raw)


def _readable(hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType, tuple):
        return bool(arguments) and all(item is Ellipsis or _readable(item) for item in arguments)
    return origin is Literal or hint in _SCALARS or (isinstance(hint, type) and issubclass(hint, enum.Enum))


def _read_union(raw: Raw, members: tuple[Any, ...]) -> Any:
    for member in members:
        with contextlib.suppress(ValueError):
            return read_value(raw, member)
    raise ValueError


def _read_choice(raw: Raw, choices: Mapping[Any, Any]) -> Any:
    for written, member in choices.items():
        if isinstance(raw, (Word, Quoted)) and raw.text == (written if isinstance(written, str) else print_value(written)):
            return member
    raise ValueError


def _read_tuple(raw: Raw, members: tuple[Any, ...]) -> tuple[Any, ...]:
    if not isinstance(raw, tuple):
        raise ValueError
    if members[-1:] == (Ellipsis,):
        members = members[:1] * len(raw)
    if len(members) != len(raw):
        raise ValueError
    return tuple(read_value(item, member) for item, member in zip(raw, members, strict=True))


def _word(pattern: re.Pattern[str], convert: Callable[[str], Any]) -> Callable[[Raw], Any]:
    def read(raw: Raw) -> Any:
        if not isinstance(raw, Word) or not pattern.fullmatch(raw.text):
            raise ValueError
        return convert(raw.text)

    return read


def _read_text(raw: Raw) -> str:
    if isinstance(raw, tuple):
        raise ValueError
    return raw.text


_SCALARS: Mapping[Any, Callable[[Raw], Any]] = {
    bool: _word(re.compile("true|false"), lambda text: text == "true"),
    int: _word(_INTEGER, int),
    float: _word(_NUMBER, float),
    str: _read_text,
    types.NoneType: _word(re.compile("none"), lambda text: None),
}
