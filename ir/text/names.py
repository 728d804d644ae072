"""How the text form writes names, strings and numbers: bare where nothing can be mistaken, else quoted as JSON quotes."""

from __future__ import annotations

import json
import re

import numpy as np

WORD = r"[A-Za-z_][A-Za-z0-9_.]*"
VALUE = r"(?:[A-Za-z0-9_./$-]|::)+"  # a single colon would swallow the one before the type

_WORD = re.compile(WORD)
_VALUE = re.compile(VALUE)
_PLAIN_NAN = 0x7FC00000


def quoted(text: str) -> str:
    """A JSON string; escaped beyond ASCII only where a character would not show on the line."""
    return json.dumps(text, ensure_ascii=not text.isprintable())


def word(name: str) -> str:
    return name if _WORD.fullmatch(name) and name not in ("inf", "nan") else quoted(name)


def value_name(name: str) -> str:
    return f"%{name if _VALUE.fullmatch(name) else quoted(name)}"


def operator_name(op: str, domain: str, overload: str) -> str:
    """`Op`, `domain::Op`, `domain::Op<overload>`."""
    return (f"{word(domain)}::" if domain else "") + word(op) + (f"<{word(overload)}>" if overload else "")


def string(text: str | bytes) -> str:
    return f'hex"{text.hex()}"' if isinstance(text, bytes) else quoted(text)


def float32(number: float) -> str:
    """The shortest decimal that reads back as the same float32: ONNX attributes hold no more than that.

    A NaN that has a sign or carries a message is written with its bits, `nan:ffc00000`.
    """
    with np.errstate(over="ignore"):
        single = np.float32(number)
    bits = int(single.view(np.uint32))
    return f"nan:{bits:08x}" if np.isnan(single) and bits != _PLAIN_NAN else str(single)


def float32_of(text: str) -> float:
    """What `float32` wrote."""
    _, _, bits = text.partition(":")
    return float(np.uint32(int(bits, 16)).view(np.float32)) if bits else float(np.float32(text))
