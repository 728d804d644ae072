"""Kernels for NVIDIA GPUs, executed on this CPU by an emulation of CUDA, against numpy: integers to the bit."""

from dataclasses import replace

import numpy as np
import pytest
import test_kernels_conv as conv
import test_kernels_matmul as matmul
import test_kernels_other as other
import test_kernels_rows as rows
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_reference import GPUS, execute, run_conv
from kernel_reference import conv as expected_conv

from deburr.targets.kernels import pack
from deburr.targets.kernels.workload import (
    Add,
    ChangeLayout,
    Conv2d,
    Dequantize,
    FloatEpilogue,
    MatMul,
    Operand,
    Pool2d,
    Quantize,
    Requantize,
    Rows,
)

ISAS = pytest.mark.parametrize("isa", list(GPUS))
QUICK = settings(max_examples=4, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
LONG = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
HOW, TURING = Requantize(3, 3, 250), GPUS["tensorcore"]


def convolution(*sizes, in_block=32, **options):
    return Conv2d(*sizes, in_block=in_block, out_block=32, **{"requantize": HOW, **options})


def matrix(*shape):
    return Operand(shape, tuple(range(len(shape))))


CONVOLUTIONS = {
    "3x3": convolution(1, 64, 14, 14, 64, (3, 3), pads=(1, 1, 1, 1)),
    "3x3, stride 2": convolution(1, 64, 15, 15, 96, (3, 3), (2, 2), (1, 1, 1, 1)),
    "1x1": convolution(1, 256, 7, 7, 64, (1, 1)),
    "1x1, stride 2": convolution(1, 64, 14, 14, 128, (1, 1), (2, 2)),
    "7x7 on the first layer": convolution(1, 3, 32, 32, 64, (7, 7), (2, 2), (3, 3, 3, 3), in_block=4, data_zero_point=9),
    "depthwise": convolution(1, 96, 14, 14, 96, (3, 3), (2, 2), (1, 1, 1, 1), groups=96, data_zero_point=5),
    "groups in a block": convolution(1, 64, 9, 9, 64, (3, 3), pads=(1, 1, 1, 1), groups=4),
    "groups of blocks": convolution(1, 128, 9, 9, 128, (3, 3), pads=(1, 1, 1, 1), groups=4),
    "residual sum": convolution(1, 64, 14, 14, 64, (3, 3), pads=(1, 1, 1, 1), add=conv.ADD),
    "3, 17 and 130 channels": convolution(1, 17, 9, 11, 130, (3, 3), pads=(1, 0, 1, 2), data_zero_point=5),
    "130 channels in": convolution(1, 130, 5, 6, 3, (1, 3), pads=(0, 1, 0, 1)),
    "fully connected": convolution(2, 300, 1, 1, 100, (1, 1), requantize=None),
    "accumulators": convolution(2, 40, 5, 37, 70, (2, 3), dilations=(2, 1), pads=(1, 2, 1, 0), requantize=None),
}
PRODUCTS = {
    "constant": MatMul(matrix(100, 64), None, matrix(100, 96), (), 100, 96, 64, block=32, requantize=HOW),
    "constant, odd": MatMul(matrix(2, 17, 50), None, matrix(2, 17, 41), (2,), 17, 41, 50, block=32, a_zero_point=7,
                            float_epilogue=FloatEpilogue(True)),
    "computed": MatMul(matrix(2, 40, 64), matrix(2, 64, 40), matrix(2, 40, 40), (2,), 40, 40, 64, block=32,
                       a_zero_point=7, b_zero_point=100, requantize=HOW),
    "heads of attention": MatMul(Operand((20, 3, 32), (1, 0, 2)), Operand((20, 3, 32), (2, 0, 1)), matrix(3, 20, 20), (3,),
                                 20, 20, 32, block=32, a_zero_point=128, b_zero_point=3, float_epilogue=FloatEpilogue()),
    "columns first": MatMul(Operand((112, 1, 40), (2, 0, 1)), None, matrix(1, 40, 33), (1,), 40, 33, 112, block=32,
                            float_epilogue=FloatEpilogue()),
    "float32": MatMul(matrix(2, 33, 20), matrix(2, 20, 50), matrix(2, 33, 50), (2,), 33, 50, 20, "float32", 32,
                      float_epilogue=FloatEpilogue(), scale=0.25),
}  # fmt: skip


@ISAS
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_are_exact(isa, name):
    conv.check_exact(CONVOLUTIONS[name], GPUS[isa], 0)


@ISAS
@pytest.mark.parametrize("name", PRODUCTS)
def test_matrix_products(isa, name):
    matmul.check(PRODUCTS[name], GPUS[isa], 0)


def test_float_convolutions_are_close():
    rng = np.random.default_rng(0)
    for w in (replace(shape, in_block=32, out_block=32) for shape in conv.FLOAT_SHAPES[:4:3]):
        data = rng.standard_normal((w.batch, w.in_channels, w.in_height, w.in_width)).astype(np.float32)
        weight = rng.standard_normal((w.out_channels, w.in_channels // w.groups, *w.kernel)).astype(np.float32)
        bias = rng.standard_normal(w.out_channels).astype(np.float32)
        residual = rng.standard_normal((w.batch, w.out_channels, w.out_height, w.out_width)).astype(np.float32)
        given_ = residual if w.float_epilogue and w.float_epilogue.residual else None
        result = run_conv(w, TURING, data, weight, bias, residual=given_)
        np.testing.assert_allclose(result, expected_conv(w, data, weight, bias, residual=given_), rtol=1e-4, atol=1e-4)


HALVES = {
    "3x3": convolution(1, 64, 14, 14, 64, (3, 3), pads=(1, 1, 1, 1)),
    "3x3, stride 2, odd": convolution(1, 40, 15, 9, 70, (3, 3), (2, 2), pads=(1, 1, 1, 1)),
    "1x1": convolution(1, 70, 7, 7, 33, (1, 1)),
    "7x7 on the first layer": convolution(1, 3, 35, 36, 64, (7, 7), (2, 2), (3, 3, 3, 3), in_block=4),
    "3x3 on the first layer": convolution(2, 3, 17, 30, 40, (3, 3), pads=(1, 1, 1, 1), in_block=8),
    "3x3, stride 3, rows apart, odd": convolution(1, 1, 20, 29, 32, (3, 2), (1, 3), (0, 1, 0, 0), (2, 1), in_block=8),
    "11x11, stride 4": convolution(1, 3, 43, 43, 32, (11, 11), (4, 4), (2, 2, 2, 2), in_block=4),
}


@pytest.mark.parametrize("name", HALVES)
def test_convolutions_of_float16_have_sums_of_float32(name):
    """On numbers that float16 holds, nothing is lost but the order of the sum."""
    w = replace(HALVES[name], dtype="float32", half=True, requantize=None, float_epilogue=FloatEpilogue(low=0.0))
    rng = np.random.default_rng(0)

    def draw(*shape):
        return rng.standard_normal(shape).astype(np.float16).astype(np.float32)

    data, weight = draw(w.batch, w.in_channels, w.in_height, w.in_width), draw(w.out_channels, w.in_channels, *w.kernel)
    bias = draw(w.out_channels)
    result = run_conv(w, TURING, data, weight, bias)
    np.testing.assert_allclose(result, expected_conv(w, data, weight, bias), rtol=1e-4, atol=1e-4)
    rounded = run_conv(w, TURING, data * np.float32(1.0003), weight, bias)
    half = (data * np.float32(1.0003)).astype(np.float16).astype(np.float32)
    np.testing.assert_allclose(rounded, expected_conv(w, half, weight, bias), rtol=1e-4, atol=1e-4)


def test_products_by_constants_of_float16():
    w = replace(PRODUCTS["constant"], dtype="float32", half=True, requantize=None, float_epilogue=FloatEpilogue())
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(shape).astype(np.float16).astype(np.float32) for shape in ((100, 64), (64, 96)))
    packed = pack.pack_matmul(w, TURING, b, np.zeros(96, np.float32), None)
    np.testing.assert_allclose(execute(w, TURING, {"data": a, **packed}), a @ b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "w",
    [
        Pool2d("max", 1, 40, 15, 15, (3, 3), (2, 2), (1, 1, 1, 1), block=32),
        Pool2d("average", 2, 70, 7, 7, (7, 7), block=32, data_zero_point=17, multiplier=0.9 / 49, requantize=HOW),
        Pool2d("average", 1, 3, 8, 8, (2, 2), (2, 2), dtype="float32", block=32, multiplier=0.25),
    ],
    ids=["max", "global average", "float"],
)
def test_pools(w):
    data = np.random.default_rng(0).integers(0, 256, (w.batch, w.channels, w.in_height, w.in_width)).astype(w.dtype)
    result = pack.unpack_activation(execute(w, TURING, {"data": pack.pack_activation(data, w.block)}), w.channels)
    np.testing.assert_array_equal(result, other.pooled(w, data))


def test_single_elements():
    """Sums, quantization and its ties, changes of layout."""
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 256, (1, 2, 5, 7, 32)).astype(np.uint8) for _ in range(2))
    total = execute(Add(a.shape, add=conv.ADD), TURING, {"a": a, "b": b})
    np.testing.assert_array_equal(total, other.fixed_point_add(a, b, conv.ADD))
    real = rng.standard_normal((2, 3, 9, 13)).astype(np.float32) * 3
    real.flat[:6] = [0.05, 0.15, 1e30, -1e30, np.inf, -np.inf]
    levels = np.clip(np.rint(real * np.float32(10)) + 120, 0, 255).astype(np.uint8)
    result = execute(Quantize(2, 3, 9, 13, 10.0, 120, 4), TURING, {"data": real})
    np.testing.assert_array_equal(result, pack.pack_activation(levels, 4))
    back = execute(Dequantize(2, 3, 9, 13, 0.37, 120, 32), TURING, {"data": pack.pack_activation(levels, 32)})
    np.testing.assert_array_equal(back, (levels.astype(np.float32) - 120) * np.float32(0.37))


@pytest.mark.parametrize(("source", "target"), [(0, 32), (32, 0), (4, 32), (32, 4)])
def test_change_layout(source, target):
    for channels, dtype in ((21, "uint8"), (64, "uint8"), (64, "float32")):
        data = np.random.default_rng(0).integers(0, 256, (2, channels, 5, 8)).astype(dtype)
        given_ = pack.pack_activation(data, source) if source else data
        result = execute(ChangeLayout(2, channels, 5, 8, dtype, source, target), TURING, {"data": given_})
        np.testing.assert_array_equal(result, pack.pack_activation(data, target) if target else data)


def test_rows():
    data = rows.values(3, 77)
    wide = np.exp(data.astype(np.float64) - data.max(axis=1, keepdims=True))
    result = rows.run(Rows("softmax", 3, 77, 32), TURING, data)
    np.testing.assert_allclose(result, wide / wide.sum(axis=1, keepdims=True), rtol=2e-6, atol=1e-9)
    for kind in ("mean", "max"):
        result = rows.run(Rows(kind, 3, 77, 32), TURING, data)
        np.testing.assert_allclose(result, getattr(np, kind)(data.astype(np.float64), axis=1), rtol=1e-5, atol=1e-5)
    scale, bias = (np.random.default_rng(seed).standard_normal(77).astype(np.float32) for seed in (1, 2))
    plain = (data - data.mean(axis=1, keepdims=True)) / np.sqrt(data.var(axis=1, keepdims=True) + 1e-5)
    result = rows.run(Rows("normalize", 3, 77, 32, 77, 1, 1e-5), TURING, data, scale, bias)
    np.testing.assert_allclose(result, plain * scale + bias, rtol=1e-4, atol=1e-4)


@ISAS
@QUICK
@given(data=st.data())
def test_random_convolutions_are_exact(isa, data):
    conv.check_exact(data.draw(conv.convolutions(isa)), GPUS[isa], data.draw(st.integers(0, 99)))


@ISAS
@QUICK
@given(data=st.data())
def test_random_products_are_exact(isa, data):
    matmul.check(data.draw(matmul.products(isa)), GPUS[isa], data.draw(st.integers(0, 99)))


@pytest.mark.slow
@ISAS
@LONG
@given(data=st.data())
def test_many_random_kernels(isa, data):
    if data.draw(st.booleans()):
        conv.check_exact(data.draw(conv.convolutions(isa)), GPUS[isa], data.draw(st.integers(0, 99)))
    else:
        dtype = data.draw(st.sampled_from(["uint8", "uint8", "float32"]))
        matmul.check(data.draw(matmul.products(isa, dtype)), GPUS[isa], data.draw(st.integers(0, 99)))
