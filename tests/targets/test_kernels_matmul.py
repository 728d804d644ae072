"""Matrix products against numpy: exact integers on every instruction set, over random shapes and orders in memory."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_reference import EVERY, TARGETS, execute, fixed_point_add, requantize

from deburr.targets.kernels import pack
from deburr.targets.kernels.workload import FixedPointAdd, FloatEpilogue, MatMul, Operand, Requantize
from deburr.targets.schedules.tile import ConvSchedule

QUICK = settings(max_examples=14, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
LONG = settings(max_examples=800, deadline=None, suppress_health_check=list(HealthCheck))
ADD = FixedPointAdd(a_zero=11, a_multiplier=19_000, b_zero=3, b_multiplier=30_123, shift=15, zero_point=7)
ISAS = pytest.mark.parametrize("isa", list(TARGETS))


@st.composite
def operands(draw, batch, rows, columns, *, repeats=False):
    """A matrix with these logical axes in any order in memory, maybe without some of the batch's, maybe with axes of 1."""
    logical = [*batch, rows, columns]
    axes = list(range(len(batch), len(logical)))
    axes += [axis for axis in range(len(batch)) if not repeats or draw(st.booleans())]
    order = draw(st.permutations(axes)) if draw(st.booleans()) else sorted(axes)
    if draw(st.booleans()):
        order.insert(draw(st.integers(0, len(order))), -1)
    return Operand(tuple(1 if axis < 0 else logical[axis] for axis in order), tuple(order))


@st.composite
def products(draw, isa, dtype="uint8"):
    batch = tuple(draw(st.lists(st.integers(1, 4), max_size=2)))
    rows, columns, depth = draw(st.integers(1, 70)), draw(st.integers(1, 70)), draw(st.integers(1, 130))
    constant = draw(st.booleans())
    out = draw(operands(batch, rows, columns))
    if out.order[-1] != len(batch) + 1:  # columns lie together
        out = Operand((*batch, rows, columns), tuple(range(len(batch) + 2)))
    quantized, residual = dtype == "uint8" and draw(st.booleans()), draw(st.booleans())
    return MatMul(
        draw(operands(batch, rows, depth, repeats=not constant)),
        None if constant else draw(operands(batch, depth, columns, repeats=True)),
        out, batch, rows, columns, depth, dtype, EVERY[isa].block,
        a_zero_point=draw(st.sampled_from([0, 1, 128, 255])),
        b_zero_point=0 if constant else draw(st.sampled_from([0, 7, 128, 255])),
        requantize=Requantize(3, 2, 250) if quantized else None, add=ADD if quantized and residual else None,
        float_epilogue=None if quantized else FloatEpilogue(residual, -1e6, 1e6),
        scale=1.0 if dtype == "uint8" else 0.25,
    )  # fmt: skip


def logical(array, operand, batch, rows, columns):
    """The operand as [batch..., rows, columns]."""
    kept = [axis for axis in operand.order if axis >= 0]
    plain = array.reshape([size for size, axis in zip(operand.shape, operand.order, strict=True) if axis >= 0])
    plain = plain.transpose(np.argsort(kept))
    for axis in range(len(batch)):
        if axis not in kept:
            plain = np.expand_dims(plain, axis)
    return np.broadcast_to(plain, (*batch, rows, columns))


def arguments(w, seed):
    rng = np.random.default_rng(seed)
    integer = w.dtype == "uint8"

    def draw(shape, low=0, high=256, dtype=w.dtype):
        return rng.integers(low, high, shape).astype(dtype) if integer else rng.standard_normal(shape).astype(np.float32)

    a = draw(w.a.shape)
    b = draw((w.depth, w.columns), -128, 128, np.int8) if w.b is None else draw(w.b.shape)
    bias = None if w.b is not None else draw(w.columns, -(2**20), 2**20, np.int32)
    scale = (rng.uniform(0.5, 2, w.columns) / (74 * 74 * w.depth**0.5)).astype(np.float32)
    multiplier = None if not integer else scale if w.requantize else np.ones(w.columns, np.float32)
    has_residual = w.add is not None or (w.float_epilogue is not None and w.float_epilogue.residual)
    residual = None
    if has_residual:
        residual = rng.integers(0, 256, w.out.shape).astype(np.uint8) if w.requantize else (
            rng.integers(-100, 100, w.out.shape).astype(np.float32))  # fmt: skip
    return a, b, bias, multiplier, residual


def reference(w, a, b, bias, multiplier, residual):
    wide = np.int64 if w.dtype == "uint8" else np.float64
    left = logical(a, w.a, w.batch, w.rows, w.depth).astype(wide) - (w.a_zero_point if w.dtype == "uint8" else 0)
    right = b if w.b is None else logical(b, w.b, w.batch, w.depth, w.columns)
    zero = w.b_zero_point if w.dtype == "uint8" else 0
    sums = (left @ (right.astype(wide) - zero)) * (1 if w.dtype == "uint8" else w.scale) + (0 if bias is None else bias)
    order = [axis for axis in w.out.order if axis >= 0]
    sums = np.ascontiguousarray(sums.transpose(order)).reshape(w.out.shape)  # as it lies in memory: columns stay last
    if w.requantize is not None:
        quantized = requantize(sums, multiplier, w.requantize)
        return quantized if w.add is None else fixed_point_add(quantized, residual, w.add)
    real = sums if multiplier is None else sums.astype(np.float32) * multiplier
    real = real if residual is None else real + residual
    return np.clip(real, w.float_epilogue.low, w.float_epilogue.high)


def check(w, target, seed, schedule=None):
    a, b, bias, multiplier, residual = arguments(w, seed)
    packed = pack.pack_matmul(w, target, b if w.b is None else None, bias, multiplier)
    arrays = {"data": a, "weight": packed.pop("weight", b), **packed, **({} if residual is None else {"residual": residual})}
    result = execute(w, target, arrays, schedule)
    expected = reference(w, a, b, bias, multiplier, residual)
    if w.dtype == "uint8":
        np.testing.assert_array_equal(result, expected)
    else:
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)


@ISAS
@QUICK
@given(data=st.data())
def test_random_integer_products_are_exact(isa, data):
    check(data.draw(products(isa)), TARGETS[isa], data.draw(st.integers(0, 99)))


@ISAS
@settings(QUICK, max_examples=6)
@given(data=st.data())
def test_random_float_products_are_close(isa, data):
    check(data.draw(products(isa, "float32")), TARGETS[isa], data.draw(st.integers(0, 99)))


@pytest.mark.slow
@ISAS
@LONG
@given(data=st.data())
def test_many_random_products(isa, data):
    check(
        data.draw(products(isa, data.draw(st.sampled_from(["uint8", "float32"])))), TARGETS[isa], data.draw(st.integers(0, 99))
    )


@ISAS
@pytest.mark.parametrize("cut", [ConvSchedule(), ConvSchedule(oc_tile=2, oh_tile=5, oc_task=3, oh_task=2, parallel=False)])
def test_any_tile_gives_the_same_bits(isa, cut):
    a, b, out = (Operand((2, rows, columns), (0, 1, 2)) for rows, columns in ((23, 40), (40, 96), (23, 96)))
    w = MatMul(a, b, out, (2,), 23, 96, 40, block=16, a_zero_point=9, b_zero_point=120, requantize=Requantize(5))
    check(w, TARGETS[isa], 1, cut)


@ISAS
def test_extreme_values_do_not_saturate(isa):
    a, b = Operand((6, 300), (0, 1)), Operand((300, 20), (0, 1))
    w = MatMul(a, b, Operand((6, 20), (0, 1)), (), 6, 20, 300, block=TARGETS[isa].block, b_zero_point=255,
               float_epilogue=FloatEpilogue())  # fmt: skip
    data, weight = np.full((6, 300), 255, np.uint8), np.zeros((300, 20), np.uint8)
    packed = pack.pack_matmul(w, TARGETS[isa], None, None, np.ones(20, np.float32))
    result = execute(w, TARGETS[isa], {"data": data, "weight": weight, **packed})
    np.testing.assert_array_equal(result, np.full((6, 20), -255.0 * 255 * 300, np.float32))
