"""Matrix products become `MatMul`, with integers or in float32; transpositions around them become orders of axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from deburr.ir.errors import DeburrError
from deburr.ir.graph import Graph
from deburr.ir.node import Node
from deburr.ir.types import Array, DType, TensorType
from deburr.ir.value import Value
from deburr.targets.kernels.pack import fold_zero_point
from deburr.targets.lower import dialect, products
from deburr.targets.lower.borders import Scale, in_blocks, quantized_weight, scale_of
from deburr.targets.lower.epilogue import Output
from deburr.targets.lower.products import FEW_ROWS, Behind, Form, Reals

DEEPEST = (2**31 - 1) // 255**2  # products of u8 by u8 whose sum fits 32 bits


def is_matrix(node: Node) -> bool:
    """Whether a product is computed on matrices as they lie; else it is a 1x1 convolution of an image of features."""
    if not dialect.is_onnx(node, "MatMul", "Gemm"):
        return False
    shape, weight = node.input(0).static_shape, node.input(1)
    if node.op == "MatMul" and shape is not None and len(shape) != 2:
        return True
    if shape is None or (weight.array is None and quantized_weight(weight) is None):
        return node.op == "MatMul"
    return shape[0] >= FEW_ROWS and not _is_of_an_image(node.input(0))


def integer(node: Node) -> str | None:
    """Replace a product of `Dequantize`d operands and what it takes in behind it; why not, or None where it did or need not."""
    a, form = scale_of(node.input(0)), products.form_of(node)
    if a is None or isinstance(form, str):
        return None if a is None else str(form)
    if in_blocks(node.input(1)):
        return "its weights have scales in blocks"
    if scale_of(node.input(1)) is not None:
        return _of_activations(node, form, a)
    weight = quantized_weight(node.input(1))
    if weight is None or weight.integers.dtype != np.int8 or weight.integers.ndim != 2:
        return "its data or weights are not quantized, or the weights have a zero point"
    transposed = form.b.order[0] > form.b.order[1]
    if weight.scale.size > 1 and weight.axis != (0 if transposed else 1):
        return "the scales of its weights do not lie along the output channels"
    return _by_weights(node, form, a, weight.integers.T if transposed else weight.integers, weight.scale)


def real(node: Node) -> str | None:
    """Replace a float32 product; why not, or None where it did."""
    form = products.form_of(node)
    if isinstance(form, str):
        return form
    weight = node.input(1).array
    constant = weight is not None and weight.ndim == 2
    bias = products.gemm_bias(node, form.columns)
    if isinstance(bias, str):
        return bias
    if bias is not None and not constant:
        return "its matrices are not as a layer has them"
    found = _with(bias, products.behind(node, form.columns if constant else 0))
    scale = float(node.get("alpha", 1.0)) * found.scale
    operands: list[Value | None] = [node.input(0), node.input(1), None]
    if weight is not None and constant:
        matrix = weight.T if form.b.order[0] > form.b.order[1] else weight
        offset = np.zeros(form.columns) if found.bias is None else found.bias
        stem = node.name or node.output().name
        operands[1:] = [
            dialect.constant(node.owner, matrix.astype(np.float32) * np.float32(scale), f"{stem}.weight"),
            dialect.constant(node.owner, offset.astype(np.float32), f"{stem}.bias"),
        ]
        scale = 1.0
    attributes = {**form.attributes(constant=constant), **_bounds(found), "scale": scale}
    _build(node, found, None, operands, attributes)
    return None


def fold_transposes(graph: Graph) -> None:
    """A Transpose that only a product reads, or that only reads one, is another order of the product's axes."""
    for node in list(graph.nodes):
        if dialect.is_op(node, "MatMul"):
            _fold_before(node, 0, "a")
            _fold_before(node, 1, "b")
            _fold_behind(node)


def _of_activations(node: Node, form: Form, a: Scale) -> str | None:
    b = scale_of(node.input(1))
    assert b is not None
    if form.depth > DEEPEST:
        return "its sums may not fit 32 bits"
    if node.optional_input(2) is not None or node.get("alpha", 1.0) != 1:
        return "its matrices are not as a layer has them"
    found = products.behind(node, 0)
    out, source = _destination(found)
    step = np.float32(a.scale) * np.float32(b.scale) * np.float32(found.scale) / out.real_scale
    multiplier = dialect.constant(node.owner, np.full(1, step, np.float32), f"{node.output().name}.multiplier")
    attributes = {
        **form.attributes(constant=False), **_epilogue(out, found),
        "a_zero_point": a.zero_point, "b_zero_point": b.zero_point,
    }  # fmt: skip
    operands = [_integers(node.input(0)), _integers(node.input(1)), None, multiplier]
    _build(node, found, source, operands, attributes)
    return None


def _by_weights(node: Node, form: Form, a: Scale, matrix: Array, scale: Array) -> str | None:
    bias = products.gemm_bias(node, form.columns)
    if isinstance(bias, str):
        return bias
    found = _with(bias, products.behind(node, form.columns))
    out, source = _destination(found)
    factor = float(node.get("alpha", 1.0)) * found.scale
    if not factor > 0:
        return "its alpha is not positive"
    scales = np.broadcast_to(scale.astype(np.float64), (form.columns,)) * factor
    offset = np.zeros(form.columns) if found.bias is None else np.rint(found.bias / (np.float64(a.scale) * scales))
    if np.abs(offset).max(initial=0) >= 2**31:
        return "its bias does not fit 32 bits"
    try:
        fold_zero_point(matrix.T, offset.astype(np.int64), a.zero_point)
    except DeburrError as error:
        return error.why
    graph, stem = node.owner, node.name or node.output().name
    multiplier = np.float32(a.scale) * scales.astype(np.float32) / out.real_scale
    operands = [
        _integers(node.input(0)),
        dialect.constant(graph, matrix, f"{stem}.weight"),
        dialect.constant(graph, offset.astype(np.int32), f"{stem}.bias"),
        dialect.constant(graph, multiplier.astype(np.float32), f"{stem}.multiplier"),
    ]
    attributes = {**form.attributes(constant=True), **_epilogue(out, found), "a_zero_point": a.zero_point}
    _build(node, found, source, operands, attributes)
    return None


def _with(bias: Reals | None, found: Behind) -> Behind:
    """A Gemm's own bias, which comes first."""
    if bias is None:
        return found
    return Behind(found.value, found.scale, bias * found.scale + (0 if found.bias is None else found.bias), found.bounds)


def _destination(found: Behind) -> tuple[Output, Node | None]:
    """Where the result goes, and the `Quantize` that is taken in."""
    if dialect.single_use(found.value):
        reader = found.value.uses[0].node
        if dialect.is_op(reader, "Quantize"):
            scale = Scale(float(reader.get("scale")), int(reader.get("zero_point")))
            return Output(scale, found.bounds, reader.output()), reader
    return Output(None, found.bounds, found.value), None


def _epilogue(out: Output, found: Behind) -> dict[str, Any]:
    return {"requantize": out.requantize, **({} if out.scale is not None else _bounds(found))}


def _bounds(found: Behind) -> dict[str, Any]:
    low, high = found.bounds.low, found.bounds.high
    return {"low": None if math.isinf(low) else low, "high": None if math.isinf(high) else high}


def _build(
    node: Node, found: Behind, quantize: Node | None, operands: Sequence[Value | None], attributes: dict[str, Any]
) -> None:
    """Put the product at the place of the last operator that it takes in."""
    last = quantize or found.value.producer
    assert last is not None
    old, dtype = last.output(), DType.FLOAT if quantize is None else DType.UINT8
    like = {"like": last, "name": old.name}
    made = dialect.build("MatMul", operands, TensorType(dtype, old.shape), attributes, **like)  # type: ignore[arg-type]
    if made.producer is not None:
        made.producer.name = node.name
    dialect.replace(last, made)


def _fold_before(node: Node, index: int, operand: str) -> None:
    value = node.input(index)
    shape, order = node.get(f"{operand}_shape"), node.get(f"{operand}_order")
    transpose = value.producer
    if shape is None or transpose is None or not dialect.is_onnx(transpose, "Transpose") or not dialect.single_use(value):
        return
    source, moved = transpose.input(0).static_shape, tuple(shape)
    if source is None or moved != value.static_shape:
        return
    inverse = np.argsort(_permutation(transpose, len(moved)))
    node.set_attribute(f"{operand}_shape", source)
    node.set_attribute(f"{operand}_order", tuple(int(order[axis]) for axis in inverse))
    node.set_input(index, transpose.input(0))


def _fold_behind(node: Node) -> None:
    value = node.output()
    shape, order = tuple(node.get("out_shape")), tuple(node.get("out_order"))
    if not dialect.single_use(value) or shape != value.static_shape or node.optional_input(4) is not None:
        return
    transpose = value.uses[0].node
    if not dialect.is_onnx(transpose, "Transpose") or transpose.output().static_shape is None:
        return
    permutation = _permutation(transpose, len(shape))
    moved = tuple(order[axis] for axis in permutation)
    if moved[-1] != max(order) or max(order) != len(node.get("batch", ())) + 1:
        return  # vectors run along the columns
    node.set_attribute("out_shape", tuple(shape[axis] for axis in permutation))
    node.set_attribute("out_order", moved)
    node.owner.set_type(value, transpose.output().type)
    node.owner.rename(value, node.owner.fresh_name(f"{value.name} before"))  # the name goes with what is no longer made
    name = transpose.output().name
    dialect.replace(transpose, value)
    if value.name != name:
        node.owner.rename(value, name)


def _permutation(transpose: Node, rank: int) -> tuple[int, ...]:
    return tuple(transpose.get("perm", range(rank - 1, -1, -1)))


def _is_of_an_image(value: Value) -> bool:
    """Whether a matrix is an image, flattened or averaged."""
    node = value.producer
    while node is not None and dialect.is_op(node, "Dequantize"):
        node = node.input(0).producer
    if node is None:
        return False
    if dialect.is_op(node, "Conv2d", "Pool2d"):
        return True
    source, result = node.input(0).static_shape, value.static_shape
    is_reshape = dialect.is_onnx(node, "Flatten", "Reshape", "Squeeze")
    return is_reshape and source is not None and result is not None and len(source) == 4 and source[0] == result[0]


def _integers(value: Value) -> Value:
    """What a `Dequantize`d value was made from."""
    assert value.producer is not None
    return value.producer.input(0)
