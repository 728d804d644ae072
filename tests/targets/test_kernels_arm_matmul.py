"""Matrix products on aarch64: the same bits as numpy's on emulated CPUs, with each family of instructions."""

import numpy as np
import pytest
from emulated import CPUS, TARGETS, execute
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
    """All in one program: starting the emulator costs more than they do."""
    from tvm import relax

    target, builder, variables, arrays, calls = TARGETS[isa], relax.BlockBuilder(), [], [], []
    drawn = [arguments(w, seed) for seed, w in enumerate(CASES)]
    for index, (w, (a, b, bias, multiplier, residual)) in enumerate(zip(CASES, drawn, strict=True)):
        kernel = build.kernel(w, target)
        packed = pack.pack_matmul(w, target, b if w.b is None else None, bias, multiplier)
        given = [a, packed.pop("weight", b), *packed.values(), *([] if residual is None else [residual])]
        own = [relax.Var(f"x{len(arrays) + i}", relax.TensorType(x.shape, str(x.dtype))) for i, x in enumerate(given)]
        function = kernel.function.with_attrs({"global_symbol": f"kernel{index}", "tirx.is_scheduled": True, "op_pattern": 8})
        calls.append((builder.add_func(function, f"kernel{index}"), own, kernel.arguments[-1]))
        variables += own
        arrays += given
    with builder.function("main", variables):
        with builder.dataflow():
            made = [builder.emit(relax.call_tir(f, own, relax.TensorType(out.shape, out.dtype))) for f, own, out in calls]
            result = builder.emit_output(relax.Tuple(made))
        builder.emit_func_output(result)
    outputs = execute(builder.get(), target, arrays, outputs=[(out.dtype, out.shape) for _, _, out in calls])
    for w, given, array in zip(CASES, drawn, outputs, strict=True):
        if w.dtype == "uint8":
            np.testing.assert_array_equal(array, reference(w, *given), err_msg=str(w))
        else:
            np.testing.assert_allclose(array, reference(w, *given), rtol=1e-4, atol=1e-4)
