"""Plain numpy versions of the kernels, on NCHW tensors, and a way to run a kernel on them.

In-process on purpose: a crash inside TVM takes the test session down, loudly, and names the test with pytest's own traceback.
"""

from dataclasses import replace

import numpy as np

from deburr.targets import target as targets
from deburr.targets.kernels import build, pack
from deburr.targets.schedules import pipeline

TARGETS = {
    "avx512vnni": targets.Target("vnni", {"kind": "llvm", "mcpu": "cascadelake", "num-cores": 2}, "avx512vnni", 16, 16, 2),
    # LLVM encodes the 256 bits of AVX-VNNI as AVX-512 has them: any machine that runs the other tests runs these.
    "avxvnni": targets.Target("vnni256", {"kind": "llvm", "mcpu": "cascadelake", "num-cores": 2}, "avxvnni", 8, 8, 2),
    "avx2": targets.Target("avx2", {"kind": "llvm", "mcpu": "core-avx2", "num-cores": 2}, "avx2", 8, 8, 2),
    "generic": targets.Target("plain", {"kind": "llvm", "mcpu": "x86-64", "num-cores": 2}, "generic", 4, 8, 2),
}


# NVIDIA GPUs, whose kernels cuda_emulation runs on this CPU: slowly, so that few of the tests that go over TARGETS take them.
TURING = targets.find("nvidia/sm_75")
GPUS = {
    "tensorcore": TURING,
    "dp4a": replace(TURING, name="pascal", isa="dp4a", gpu=("sm_61",)),
    "cuda": replace(TURING, name="maxwell", isa="cuda", gpu=("sm_53",)),
}
EVERY = {**TARGETS, **GPUS}


def execute(workload, target, arrays, schedule=None):
    """Build the kernel, check every array against its argument, run it; the output as it lies in memory."""
    import cuda_emulation
    import tvm

    kernel = build.kernel(workload, target, schedule)
    *inputs, last = kernel.arguments
    assert [argument.name for argument in inputs] == list(arrays)
    for argument, array in zip(inputs, arrays.values(), strict=True):
        assert (argument.shape, argument.dtype) == (array.shape, str(array.dtype)), argument.name
    # Poison: whatever the kernel leaves out stays visible.
    output = np.full(last.shape, 77, last.dtype)
    if target.gpu:
        return cuda_emulation.run(kernel.function, target, arrays.values(), output)
    library = pipeline.library(kernel.function, target)
    result = tvm.runtime.tensor(output)
    library["main"](*(tvm.runtime.tensor(np.ascontiguousarray(array)) for array in arrays.values()), result)
    return result.numpy()


def run_conv(workload, target, data, weight, bias, multiplier=None, residual=None, schedule=None):
    """A convolution of NCHW tensors through packing and the kernel, back as NCHW. Padding channels of the data hold junk."""
    w = workload
    blocked = pack.pack_activation(data, w.in_block)
    if w.in_channels % w.in_block:
        blocked[:, -1, :, :, w.in_channels % w.in_block :] = 113
    arrays = {"data": blocked, **pack.pack_conv2d(w, target, weight, bias, multiplier)}
    if residual is not None:
        arrays["residual"] = pack.pack_activation(residual, w.out_block)
    return pack.unpack_activation(execute(w, target, arrays, schedule), w.out_channels)


def accumulators(workload, data, weight, bias):
    """int64 (or float64) sums over ``(data - zero_point) * weight``, zeros beyond the border, plus bias."""
    w = workload
    wide = np.float64 if w.dtype == "float32" else np.int64
    centred = data.astype(wide) - (0 if w.dtype == "float32" else w.data_zero_point)
    top, left, bottom, right = w.pads
    padded = np.pad(centred, ((0, 0), (0, 0), (top, bottom), (left, right)))
    outputs, inputs = w.out_channels // w.groups, w.in_channels // w.groups
    result = np.zeros((w.batch, w.out_channels, w.out_height, w.out_width), wide)
    for kh in range(w.kernel[0]):
        for kw in range(w.kernel[1]):
            y, x = kh * w.dilations[0], kw * w.dilations[1]
            window = padded[:, :, y : y + (w.out_height - 1) * w.strides[0] + 1 : w.strides[0]]
            window = window[:, :, :, x : x + (w.out_width - 1) * w.strides[1] + 1 : w.strides[1]]
            for g in range(w.groups):
                rows, columns = slice(g * outputs, (g + 1) * outputs), slice(g * inputs, (g + 1) * inputs)
                result[:, rows] += np.einsum("nchw,oc->nohw", window[:, columns], weight[rows, :, kh, kw].astype(wide))
    return result + bias.astype(wide)[None, :, None, None]


def requantize(accumulator, multiplier, how):
    """`Requantize` in numpy; `multiplier` broadcasts against the accumulator."""
    scaled = np.rint(accumulator.astype(np.float32) * np.asarray(multiplier, np.float32)).astype(np.float64)
    return np.clip(scaled + how.zero_point, how.low, how.high).astype(np.int64)


def fixed_point_add(a, b, how):
    """`FixedPointAdd` in numpy, in int64."""
    a, b = a.astype(np.int64) - how.a_zero, b.astype(np.int64) - how.b_zero
    total = a * how.a_multiplier + b * how.b_multiplier + (1 << (how.shift - 1)) + how.offset
    return np.clip((total >> how.shift) + how.zero_point, how.low, how.high)


def conv(workload, data, weight, bias, multiplier=None, residual=None):
    """The whole fused group."""
    w, sums = workload, accumulators(workload, data, weight, bias)
    if w.dtype == "float32":
        sums = sums if residual is None else sums + residual
        return sums if w.float_epilogue is None else np.clip(sums, w.float_epilogue.low, w.float_epilogue.high)
    scale = multiplier[None, :, None, None]
    if w.requantize is None:
        return sums.astype(np.float32) * scale
    quantized = requantize(sums, scale, w.requantize)
    return quantized if w.add is None else fixed_point_add(quantized, residual, w.add)
