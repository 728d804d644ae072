"""The side file of the text form: an .npz that holds, by hash, the constants too large to write out."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from deburr.ir.attributes import Attribute
from deburr.ir.constants import Constant
from deburr.ir.errors import DeburrError
from deburr.ir.files import write_atomically
from deburr.ir.model import Model
from deburr.ir.text.elements import element_texts, is_inline, weight_key
from deburr.ir.types import Array, DType

INDEX = "index"  # the entry of the .npz with dtype and dims of all others, as JSON


def weights_of(model: Model) -> dict[str, Constant]:
    """Every constant that the model's text names by its hash."""
    return {weight_key(constant): constant for constant in _constants(model) if not is_inline(constant)}


def save_weights(path: str | Path, weights: Mapping[str, Constant]) -> None:
    """Write them as an .npz: raw bytes for each, because numpy has no name for the smaller element types.

    :raises DeburrError: E109.
    """
    index = {key: [str(constant.dtype), list(constant.shape)] for key, constant in weights.items()}
    entries = {key: _to_bytes(constant) for key, constant in weights.items()}
    entries[INDEX] = np.frombuffer(json.dumps(index).encode(), np.uint8)

    def write(fresh: Path) -> None:
        with fresh.open("wb") as file:
            np.savez(file, **entries)  # type: ignore[arg-type]

    write_atomically(path, write)


def load_weights(path: str | Path) -> dict[str, Constant]:
    """What `save_weights` wrote.

    :raises DeburrError: E101 for a file that cannot be read, or holds something else; E107 for a tensor that does not have
        the hash it is filed under.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            index = json.loads(archive[INDEX].tobytes())
            weights = {key: _from_bytes(archive[key], DType[dtype.upper()], shape) for key, (dtype, shape) in index.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise DeburrError("E101", "cannot read the weights of a text form", where=str(path), why=str(error)) from error
    for key, constant in weights.items():
        if weight_key(constant) != key:
            raise DeburrError("E107", "a tensor does not have the hash it is filed under", where=f"{path}, sha256:{key}")
    return weights


def _constants(model: Model) -> Iterator[Constant]:
    for graph in model.graphs:
        for value in graph.values:
            if value.constant is not None:
                yield value.constant
            if value.qparams is not None:
                yield from (Constant.of(value.qparams.scale), Constant.of(value.qparams.zero_point))
        for node in graph.nodes:
            for attribute in node.attributes.values():
                yield from _held(attribute)
    for function in model.functions.values():
        for default in function.attributes.values():
            yield from () if default is None else _held(default)


def _held(attribute: Attribute) -> Iterator[Constant]:
    items = attribute.value if isinstance(attribute.value, tuple) else (attribute.value,)
    yield from (item for item in items if isinstance(item, Constant))


def _to_bytes(constant: Constant) -> Array:
    if constant.dtype is DType.STRING:
        return np.frombuffer(json.dumps(element_texts(constant)).encode(), np.uint8)
    return np.frombuffer(np.ascontiguousarray(constant.array).tobytes(), np.uint8)


def _from_bytes(data: Array, dtype: DType, shape: list[int]) -> Constant:
    if dtype is DType.STRING:
        texts = np.array([_unquoted(text) for text in json.loads(data.tobytes())], object)
        return Constant.of(texts.reshape(shape), dtype)
    return Constant.of(np.frombuffer(data.tobytes(), dtype.numpy).reshape(shape), dtype)


def _unquoted(text: str) -> str | bytes:
    return bytes.fromhex(text[4:-1]) if text.startswith("hex") else str(json.loads(text))
