"""aarch64 kernels: the same bits as numpy's on emulated CPUs, and inner loops that are what they should be."""

import re
from dataclasses import replace

import numpy as np
import pytest
from emulated import CPUS, TARGETS, execute_kernels
from kernel_reference import conv
from test_kernels_conv import ADD, random_arguments

from deburr.targets.kernels import build, pack
from deburr.targets.kernels.workload import Conv2d, FloatEpilogue, Requantize
from deburr.targets.schedules import pipeline
from deburr.targets.schedules.tile import ConvSchedule

ISAS = pytest.mark.parametrize("isa", list(CPUS))
WINDOW = {"kernel": (3, 3), "pads": (1, 1, 1, 1)}
SHAPES = {
    "3x3": Conv2d(1, 20, 9, 13, 40, **WINDOW, data_zero_point=9, requantize=Requantize(5)),
    "three_channels": Conv2d(2, 3, 9, 8, 17, (5, 3), (2, 1), (2, 1, 1, 0), in_block=4, data_zero_point=255),
    "planes": Conv2d(2, 3, 9, 16, 17, (5, 7), (2, 3), (2, 1, 1, 0), in_block=1, data_zero_point=255),
    "half_blocks": Conv2d(1, 20, 5, 5, 24, (1, 1), in_block=8, requantize=Requantize(3, 3, 200)),
    "7x7_strided": Conv2d(2, 40, 8, 15, 24, (7, 7), (2, 2), (3, 3, 3, 3), data_zero_point=5, requantize=Requantize(9)),
    "1x1_with_sum": Conv2d(1, 33, 7, 7, 33, (1, 1), data_zero_point=1, requantize=Requantize(3), add=ADD),
    "dilated": Conv2d(1, 16, 9, 9, 16, (3, 2), (1, 2), (2, 0, 1, 1), (2, 3), requantize=Requantize(0)),
    "groups": Conv2d(1, 24, 6, 6, 36, **WINDOW, groups=4, data_zero_point=128, requantize=Requantize(3)),
    "depthwise": Conv2d(1, 40, 8, 8, 40, **WINDOW, groups=40, data_zero_point=7, requantize=Requantize(3)),
    "gemm": Conv2d(3, 130, 1, 1, 70, (1, 1), data_zero_point=3),
}  # fmt: skip
FLOATS = {
    "3x3": Conv2d(1, 20, 8, 8, 40, **WINDOW, dtype="float32", float_epilogue=FloatEpilogue(True, 0.0)),
    "gemm": Conv2d(2, 33, 1, 1, 70, (1, 1), dtype="float32"),
    "three_channels": Conv2d(1, 3, 9, 8, 17, (5, 3), (2, 1), (2, 1, 1, 0), in_block=3, dtype="float32"),
    "depthwise": Conv2d(1, 24, 8, 8, 24, **WINDOW, groups=24, dtype="float32"),
}


def run_all(cases, target):
    """Outputs (NCHW) of many kernels.

    :param cases: (workload, arguments as `conv` takes them, schedule).
    """
    entries = []
    for w, (data, weight, bias, multiplier, residual), schedule in cases:
        given = [pack.pack_activation(data, w.in_block), *pack.pack_conv2d(w, target, weight, bias, multiplier).values()]
        given += [] if residual is None else [pack.pack_activation(residual, w.out_block)]
        entries.append((build.kernel(w, target, schedule), given))
    outputs = execute_kernels(entries, target)
    return [pack.unpack_activation(array, w.out_channels) for array, (w, *_) in zip(outputs, cases, strict=True)]


@ISAS
def test_the_same_bits_as_numpy(isa):
    """Every shape with its default tile, and one with tiles that divide nothing."""
    cases = [(w, random_arguments(w, seed), None) for seed, w in enumerate(SHAPES.values())]
    cases.append((SHAPES["3x3"], random_arguments(SHAPES["3x3"], 9), ConvSchedule(1, 3, 1, 2, parallel=False)))
    extreme = replace(SHAPES["gemm"], requantize=None)
    _, weight, bias, multiplier, _ = random_arguments(extreme, 0)
    weight[::2], weight[1::2] = -128, 127
    cases.append((extreme, (np.full((3, 130, 1, 1), 255, np.uint8), weight, bias, multiplier, None), None))
    for (w, arguments, _), given in zip(cases, run_all(cases, TARGETS[isa]), strict=True):
        np.testing.assert_array_equal(given, conv(w, *arguments), err_msg=str(w))


def test_floats_are_close():
    rng, cases = np.random.default_rng(0), []
    for w in FLOATS.values():
        shape = (w.batch, w.out_channels, w.out_height, w.out_width)
        residual = rng.standard_normal(shape).astype(np.float32) if w.float_epilogue else None
        data = rng.standard_normal((w.batch, w.in_channels, w.in_height, w.in_width)).astype(np.float32)
        weight = rng.standard_normal((w.out_channels, w.in_channels // w.groups, *w.kernel)).astype(np.float32)
        cases.append((w, (data, weight, rng.standard_normal(w.out_channels).astype(np.float32), None, residual), None))
    for (w, arguments, _), given in zip(cases, run_all(cases, TARGETS["neon"]), strict=True):
        np.testing.assert_allclose(given, conv(w, *arguments), rtol=1e-4, atol=1e-4, err_msg=str(w))


def inner_loop(workload, target, instruction):
    """The basic block with most of the multiplications, an instruction a line."""
    text = pipeline.library(build.kernel(workload, target).function, target).mod.inspect_source("asm")
    blocks = re.split(r"\n(?=\.L\w+:)", text)
    lines = max(blocks, key=lambda block: len(re.findall(rf"^\s+{instruction}\s", block, re.M))).splitlines()
    return [line.split("//")[0].strip() for line in lines if re.match(r"\s+[a-z]", line)]


RESNET = {"3x3": Conv2d(1, 64, 56, 56, 64, **WINDOW, requantize=Requantize(3)), "1x1": Conv2d(1, 256, 56, 56, 64, (1, 1))}


@pytest.mark.parametrize("name", list(RESNET))
@pytest.mark.parametrize(
    ("isa", "instruction", "share"),
    [("neon", "smlal2?", 0.75), ("dotprod", "sdot", 0.8), ("i8mm", "usmmla", 0.55), ("float", "fmla", 0.7)],
)
def test_sums_stay_in_registers(isa, instruction, share, name):
    """Most instructions multiply, each with a lane of the data or with two pixels, and none of them waits for the stack."""
    # In float32 a stride of 2 keeps Winograd's tiles away, whose transforms are the longest blocks.
    as_float = {"dtype": "float32", "requantize": None, "strides": (2, 2)}
    workload = replace(RESNET[name], **as_float) if isa == "float" else RESNET[name]
    lines = inner_loop(workload, TARGETS["dotprod" if isa == "float" else isa], instruction)
    at = [index for index, line in enumerate(lines) if re.match(rf"{instruction}\s", line)]
    loop, multiplications = lines[at[0] : at[-1] + 1], [lines[index] for index in at]
    assert len(multiplications) >= 32
    assert len(multiplications) / len(loop) > share
    assert not any("[sp" in line for line in loop)
    by_element = [line for line in multiplications if re.search(r"\[\d+\]$", line)]
    assert isa == "i8mm" or len(by_element) / len(multiplications) > 0.8  # lane 0 is LLVM's to load otherwise
