"""Types, tensors and quantization parameters, read from text."""

from __future__ import annotations

from collections.abc import Mapping

from deburr.ir.constants import Constant
from deburr.ir.text.elements import array_of, raw_array
from deburr.ir.text.lexer import Lexer
from deburr.ir.types import Dim, DType, OpaqueType, QParams, Shape, TensorType, ValueType

Weights = Mapping[str, Constant]


def parse_type(lexer: Lexer) -> ValueType | None:
    """`float[1, N, ?]`, `float[...]` (unknown rank), `opaque "label" hex"…"`, `?` (nothing known)."""
    if lexer.accept("?"):
        return None
    if lexer.accept("opaque"):
        label = lexer.string()
        return OpaqueType(lexer.raw_bytes(), label)
    return TensorType(parse_dtype(lexer), _shape(lexer))


def parse_dtype(lexer: Lexer) -> DType:
    token = lexer.take("word", "an element type")
    if token.text not in _DTYPES:
        lexer.fail("there is no such element type", token)
    return _DTYPES[token.text]


def parse_tensor(lexer: Lexer, weights: Weights) -> Constant:
    """`float[2, 2] [1.0, 2.0, 3.0, 4.0]`, `int64[] 3`, or a hash in place of the elements."""
    start = lexer.token
    dtype = parse_dtype(lexer)
    shape = TensorType(dtype, _shape(lexer)).static_shape
    if shape is None or dtype is DType.UNDEFINED:
        lexer.fail("a tensor has an element type, and numbers as dims", start)
    return parse_payload(lexer, weights, dtype, shape)


def parse_payload(lexer: Lexer, weights: Weights, dtype: DType, shape: tuple[int, ...] | None) -> Constant:
    """Elements written out, as bytes, or by hash.

    :param shape: dims, or None for a vector as long as it happens to be.
    """
    start = lexer.token
    if start.kind == "hash":
        return _weight(lexer, weights, dtype, shape)
    if start.kind == "hex" and dtype is not DType.STRING:
        data = lexer.raw_bytes()
        shape = (len(data) // dtype.numpy.itemsize,) if shape is None else shape
        try:
            return Constant.of(raw_array(data, dtype, shape), dtype)
        except ValueError as error:
            lexer.fail(str(error), start)
    items = _items(lexer)
    try:
        return Constant.of(array_of(items, dtype, (len(items),) if shape is None else shape), dtype)
    except ValueError as error:
        lexer.fail(str(error), start)


def parse_qparams(lexer: Lexer, weights: Weights) -> QParams:
    """`<uint8, bits=5, axis=1, block_size=32, shape=[2, 8], scale=[…], zero_point=[…]>`.

    What there is not of bits, axis and block_size is left out. `shape` is that of scales in blocks.
    """
    start = lexer.token
    lexer.expect("<")
    dtype = parse_dtype(lexer)
    lexer.expect(",")
    bits = _option(lexer, "bits")
    axis = _option(lexer, "axis")
    block_size = _option(lexer, "block_size")
    shape: tuple[int, ...] | None = () if axis is None else None
    if block_size is not None:
        lexer.expect("shape")
        lexer.expect("=")
        shape = TensorType(dtype, _shape(lexer)).static_shape
        lexer.expect(",")
    parts = []
    for key, part in (("scale", DType.FLOAT), ("zero_point", DType.INT32)):
        lexer.expect(key)
        lexer.expect("=")
        parts.append(parse_payload(lexer, weights, part, shape).array)
        lexer.expect("," if key == "scale" else ">")
    try:
        return QParams(parts[0], parts[1], dtype, axis, block_size, bits)  # type: ignore[arg-type]
    except ValueError as error:
        lexer.fail(str(error), start)


def _option(lexer: Lexer, key: str) -> int | None:
    if not lexer.accept(key):
        return None
    lexer.expect("=")
    number = lexer.integer()
    lexer.expect(",")
    return number


def _weight(lexer: Lexer, weights: Weights, dtype: DType, shape: tuple[int, ...] | None) -> Constant:
    token = lexer.next()
    constant = weights.get(token.text.removeprefix("sha256:"))
    if constant is None:
        lexer.fail("the weights hold no tensor with this hash", token)
    if constant.dtype != dtype or (shape is not None and constant.shape != shape):
        lexer.fail(f"the tensor with this hash is {constant.dtype}{list(constant.shape)}", token)
    return constant


def _items(lexer: Lexer) -> list[str | bytes]:
    if not lexer.accept("["):
        return [_item(lexer)]
    items: list[str | bytes] = []
    while not lexer.accept("]"):
        if items:
            lexer.expect(",")
        items.append(_item(lexer))
    return items


def _item(lexer: Lexer) -> str | bytes:
    if lexer.token.kind in ("string", "hex"):
        return lexer.string_or_bytes()
    if lexer.token.kind not in ("int", "float") and lexer.token.text not in ("true", "false"):
        lexer.fail("expected a tensor element")
    return lexer.next().text


def _shape(lexer: Lexer) -> Shape | None:
    lexer.expect("[")
    if lexer.accept("..."):
        lexer.expect("]")
        return None
    dims: list[Dim] = []
    while not lexer.accept("]"):
        if dims:
            lexer.expect(",")
        dims.append(_dim(lexer))
    return tuple(dims)


def _dim(lexer: Lexer) -> Dim:
    if lexer.accept("?"):
        return None
    return lexer.integer() if lexer.token.kind == "int" else lexer.word("a dim")


_DTYPES = {str(dtype): dtype for dtype in DType}
