"""Matrix products on aarch64: the same bits as numpy's on emulated CPUs, with each family of instructions."""

import numpy as np
import pytest
from emulated import CPUS, TARGETS, execute_kernels
from test_kernels_matmul import ADD, arguments, reference

from deburr.targets.kernels import build, pack
from deburr.targets.kernels.workload import FloatEpilogue, MatMul, Operand, Requantize


def plain(*shape):
    return Operand(shape, tuple(range(len(shape))))


CASES = [
    MatMul(plain(9, 48), None, plain(9, 40), (), 9, 40, 48, a_zero_point=7, requantize=Requantize(3)),
    MatMul(plain(5, 37), None, plain(5, 33), (), 5, 33, 37, a_zero_point=200, requantize=Requantize(3), add=ADD),
    MatMul(plain(2, 8, 32), plain(2, 32, 16), plain(2, 8, 16), (2,), 8, 16, 32, a_zero_point=128, b_zero_point=128,
           float_epilogue=FloatEpilogue()),
    MatMul(Operand((7, 2, 19), (1, 0, 2)), Operand((2, 21, 19), (0, 2, 1)), plain(2, 7, 21), (2,), 7, 21, 19, a_zero_point=3,
           b_zero_point=250, requantize=Requantize(128)),
    MatMul(plain(6, 35), None, plain(6, 18), (), 6, 18, 35, "float32", float_epilogue=FloatEpilogue(True, 0.0)),
]  # fmt: skip


@pytest.mark.parametrize("isa", list(CPUS))
def test_the_same_bits_as_numpy(isa):
    target, entries = TARGETS[isa], []
    drawn = [arguments(w, seed) for seed, w in enumerate(CASES)]
    for w, (a, b, bias, multiplier, residual) in zip(CASES, drawn, strict=True):
        packed = pack.pack_matmul(w, target, b if w.b is None else None, bias, multiplier)
        given = [a, packed.pop("weight", b), *packed.values(), *([] if residual is None else [residual])]
        entries.append((build.kernel(w, target), given))
    outputs = execute_kernels(entries, target)
    for w, given, array in zip(CASES, drawn, outputs, strict=True):
        if w.dtype == "uint8":
            np.testing.assert_array_equal(array, reference(w, *given), err_msg=str(w))
        else:
            np.testing.assert_allclose(array, reference(w, *given), rtol=1e-4, atol=1e-4)
