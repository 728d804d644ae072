"""MatMul and Gemm on matrices as they lie in memory: what is around a product and goes into its kernel.

Behind it a factor, a bias for each column, an activation, a quantizer; before and behind it transpositions, as another order of
axes in memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from deburr.ir.node import Node
from deburr.ir.value import Value
from deburr.targets.kernels.workload import Operand
from deburr.targets.lower import dialect
from deburr.targets.lower.epilogue import Bounds, limits_of

Reals = npt.NDArray[np.float64]

FEW_ROWS = 16  # with fewer, a matrix is one pixel of an image of features: a convolution, in the layout of the images before it


@dataclass(frozen=True)
class Behind:
    """``clamp(scale * product + bias)`` up to `value`, the result of the last operator that is taken in."""

    value: Value
    scale: float = 1.0
    bias: Reals | None = None  # [columns], float64
    bounds: Bounds = field(default_factory=Bounds)


@dataclass(frozen=True)
class Form:
    """The two operands, row-major or not, and the sizes."""

    a: Operand
    b: Operand
    out: Operand
    batch: tuple[int, ...]
    rows: int
    columns: int
    depth: int

    def attributes(self, *, constant: bool) -> dict[str, Any]:
        """As `MatMul` of the dialect has them."""
        form = self._flat() if constant else self
        return {
            "a_shape": form.a.shape, "a_order": form.a.order, "out_shape": form.out.shape, "out_order": form.out.order,
            "b_shape": None if constant else form.b.shape, "b_order": None if constant else form.b.order,
            "batch": form.batch or None, "rows": form.rows, "columns": form.columns, "depth": form.depth,
        }  # fmt: skip

    def _flat(self) -> Form:
        """A constant matrix multiplies all rows of all batches alike: one batch."""
        if not self.batch or any(list(kept.order) != sorted(kept.order) for kept in (self.a, self.out)):
            return self
        rows = self.rows * math.prod(self.batch)
        a, out = Operand((rows, self.depth), (0, 1)), Operand((rows, self.columns), (0, 1))
        return replace(self, a=a, out=out, batch=(), rows=rows)


def form_of(node: Node) -> Form | str:
    """The form of a MatMul, or of a Gemm that is one; why there is none."""
    a, b, out = node.input(0).static_shape, node.input(1).static_shape, node.output().static_shape
    if a is None or b is None or out is None or not a or not b or not math.prod((*a, *b, *out)):
        return "its sizes are not known"
    flips = [node.op == "Gemm" and bool(node.get(name, 0)) for name in ("transA", "transB")]
    outer = out[: len(out) - (len(a) > 1) - (len(b) > 1)]
    kept = [axis for axis, size in enumerate(outer) if size > 1]
    rank = len(kept)

    def operand(shape: tuple[int, ...], ends: Sequence[int]) -> Operand:
        inner = len(ends)
        lead = len(shape) - inner
        order = [kept.index(axis) if axis in kept else -1 for axis in range(len(outer) - lead, len(outer))]
        order = [-1 if size == 1 else axis for size, axis in zip(shape, order, strict=False)]
        return Operand(shape, (*order, *ends))

    left = (rank, rank + 1) if len(a) > 1 else (rank + 1,)
    right = (rank, rank + 1) if len(b) > 1 else (rank,)
    result = (*((rank,) if len(a) > 1 else ()), *((rank + 1,) if len(b) > 1 else ()))
    if not result or len(b) == 1:
        return "its result is a vector"
    first = operand(a, left[::-1] if flips[0] else left)
    second = operand(b, right[::-1] if flips[1] else right)
    depth = a[-2] if flips[0] else a[-1]
    rows = 1 if len(a) == 1 else (a[-1] if flips[0] else a[-2])
    columns = b[-2] if flips[1] else b[-1]
    return Form(first, second, operand(out, result), tuple(outer[axis] for axis in kept), rows, columns, depth)


def behind(node: Node, columns: int) -> Behind:
    """What follows a product and nothing else reads: constant factors and biases, then activations.

    :param columns: how long a bias is; 0: none is taken in.
    """
    found = Behind(node.output())
    while dialect.single_use(found.value):
        reader = found.value.uses[0].node
        step = _step(reader, found, columns)
        if step is None or reader.output().static_shape != node.output().static_shape:
            break
        found = step
    return found


def _step(reader: Node, found: Behind, columns: int) -> Behind | None:
    limits = limits_of(reader)
    if limits is not None and reader.input(0) is found.value:
        return replace(found, value=reader.output(), bounds=Bounds(*limits).within(found.bounds.low, found.bounds.high))
    if found.bounds != Bounds():
        return None
    if dialect.is_onnx(reader, "Mul", "Div"):
        return _scaled(reader, found)
    return _biased(reader, found, columns) if dialect.is_onnx(reader, "Add", "Sub") else None


def _scaled(reader: Node, found: Behind) -> Behind | None:
    first = reader.input(0) is found.value
    factor = dialect.scalar(reader.input(1 if first else 0))
    if factor is None or not factor > 0 or (reader.op == "Div" and not first):
        return None
    factor = 1 / factor if reader.op == "Div" else factor
    bias = None if found.bias is None else found.bias * factor
    return Behind(reader.output(), found.scale * factor, bias)


def _biased(reader: Node, found: Behind, columns: int) -> Behind | None:
    first = reader.input(0) is found.value
    bias = row(reader.input(1 if first else 0), columns)
    if bias is None or (reader.op == "Sub" and not first):
        return None
    bias = -bias if reader.op == "Sub" else bias
    return Behind(reader.output(), found.scale, bias if found.bias is None else found.bias + bias)


def row(value: Value, columns: int) -> Reals | None:
    """A constant that adds the same row to every row, float64 [columns]; integers behind a DequantizeLinear too."""
    from deburr.targets.lower.borders import quantized_weight

    array = value.array if columns else None
    stored = quantized_weight(value) if array is None else None
    if stored is not None and stored.scale.size in (1, stored.integers.size):
        array = stored.integers * stored.scale.reshape(-1).astype(np.float64)
    if array is None or array.dtype.kind != "f" or array.size not in (1, columns):
        return None
    if array.size > 1 and array.shape[-1] != columns:
        return None
    flat: Reals = np.broadcast_to(array.reshape(-1).astype(np.float64), (columns,))
    return flat


def gemm_bias(node: Node, columns: int) -> Reals | str | None:
    """The third input of a Gemm times beta, [columns]."""
    value = node.optional_input(2) if node.op == "Gemm" else None
    if value is None:
        return None
    bias = row(value, columns)
    return "its bias differs from row to row" if bias is None else bias * float(node.get("beta", 1.0))
