"""float16 on aarch64: kernels that multiply it as such, on emulated CPUs, and CPUs that cannot."""

import re
from dataclasses import replace

import numpy as np
import pytest
from emulated import TARGETS, execute_kernels
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_reference import conv
from test_kernels_arm import FLOATS, inner_loop, run_all

from deburr.ir.onnx_reader import read
from deburr.ir.onnx_writer import to_proto
from deburr.targets.kernels import build, chunks, pack
from deburr.targets.kernels.workload import Conv2d, FloatEpilogue, MatMul, Operand
from deburr.targets.schedules import pipeline
from deburr.targets.schedules.tile import ConvSchedule
from deburr.targets.target import find

ERROR = 3e-3  # root mean square over that of the sums: data rounded to float16, and 64 products summed in it
SHAPES = {
    **FLOATS,
    "1x1": Conv2d(1, 80, 7, 7, 48, (1, 1), dtype="float32", float_epilogue=FloatEpilogue(low=0.0)),
    "5x5": Conv2d(1, 40, 9, 9, 16, (5, 5), (2, 2), (2, 2, 2, 2), dtype="float32"),
    "half_blocks": Conv2d(1, 20, 5, 5, 24, (1, 1), in_block=8, dtype="float32"),
    "first": Conv2d(1, 3, 15, 19, 33, (7, 7), (2, 2), (3, 3, 3, 3), in_block=4, dtype="float32"),
    "groups": Conv2d(1, 24, 6, 6, 36, (3, 3), pads=(1, 1, 1, 1), groups=4, dtype="float32"),
}
HALF = TARGETS["dotprod"]


def arguments(w, seed):
    """Random data, weights that are float16, bias and residual, as `conv` takes them."""
    rng = np.random.default_rng(seed)
    data = rng.standard_normal((w.batch, w.in_channels, w.in_height, w.in_width)).astype(np.float32)
    weight = rng.standard_normal((w.out_channels, w.in_channels // w.groups, *w.kernel)).astype(np.float16).astype(np.float32)
    shape = (w.batch, w.out_channels, w.out_height, w.out_width)
    residual = rng.standard_normal(shape).astype(np.float32) if w.float_epilogue and w.float_epilogue.residual else None
    return data, weight, rng.standard_normal(w.out_channels).astype(np.float32), None, residual


def error(expected, given_array):
    return np.sqrt(np.mean((given_array - expected) ** 2)) / np.sqrt(np.mean(expected**2))


def assert_close(workloads, target, schedules=()):
    halves = [replace(w, half=True) for w in workloads]
    schedules = list(schedules) or [None] * len(halves)
    cases = [(w, arguments(w, seed), schedule) for seed, (w, schedule) in enumerate(zip(halves, schedules, strict=True))]
    for (w, given_arrays, _), array in zip(cases, run_all(cases, target), strict=True):
        assert error(conv(w, *given_arrays), array) < ERROR, w


def test_convolutions_are_close_to_numpy():
    tiles = [*[None] * len(SHAPES), ConvSchedule(1, 3, 1, 2, parallel=False)]
    assert_close([*SHAPES.values(), SHAPES["1x1"]], HALF, tiles)


def test_where_there_is_no_dot_product_too():
    """Half arithmetic is another extension: Apple's A11 has it without sdot. Any CPU with both runs this."""
    target = replace(TARGETS["neon"], tvm={**TARGETS["neon"].tvm, "mcpu": "apple-a11"})
    assert target.multiplies_float16()
    entries = [(w, arguments(w, 5), None) for w in (replace(SHAPES["3x3"], half=True),)]
    made = execute_on(entries, target, cpu="max")
    assert error(conv(*entries[0][:1], *entries[0][1]), made[0]) < ERROR


def execute_on(entries, target, cpu):
    kernels = []
    for w, (data, weight, bias, _, residual), schedule in entries:
        packed = [pack.pack_activation(data, w.in_block), *pack.pack_conv2d(w, target, weight, bias).values()]
        packed += [] if residual is None else [pack.pack_activation(residual, w.out_block)]
        kernels.append((build.kernel(w, target, schedule), packed))
    outputs = execute_kernels(kernels, target, cpu=cpu)
    return [pack.unpack_activation(array, w.out_channels) for array, (w, *_) in zip(outputs, entries, strict=True)]


@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_convolutions_of_any_shape(data):
    """Eight to a program: starting the emulator takes longest."""

    def shape():
        kernel = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
        groups = data.draw(st.sampled_from([1, 1, 1, 2]))
        pads = data.draw(st.tuples(*[st.integers(0, 2)] * 4))
        return Conv2d(
            1, groups * data.draw(st.integers(1, 90)), kernel[0] + data.draw(st.integers(0, 6)),
            kernel[1] + data.draw(st.integers(0, 9)), groups * data.draw(st.integers(1, 40)), kernel,
            data.draw(st.tuples(st.integers(1, 2), st.integers(1, 2))), pads, groups=groups, dtype="float32",
        )  # fmt: skip

    assert_close([shape() for _ in range(8)], HALF)


@pytest.mark.parametrize(("rows", "depth", "columns"), [(5, 130, 70), (1, 48, 33), (17, 256, 16)])
def test_matrix_products(rows, depth, columns):
    rng = np.random.default_rng(rows)
    w = MatMul(
        Operand((rows, depth), (0, 1)), None, Operand((rows, columns), (0, 1)), (), rows, columns, depth, dtype="float32",
        float_epilogue=FloatEpilogue(low=0.0), half=True,
    )  # fmt: skip
    a, bias = rng.standard_normal((rows, depth)).astype(np.float32), rng.standard_normal(columns).astype(np.float32)
    b = rng.standard_normal((depth, columns)).astype(np.float16).astype(np.float32)
    kernel = build.kernel(w, HALF)
    packed = pack.pack_matmul(w, HALF, b, bias, None)
    assert packed["weight"].dtype == np.float16
    (made,) = execute_kernels([(kernel, [a, *packed.values()])], HALF)
    assert error(np.maximum(a.astype(np.float64) @ b + bias, 0), made) < ERROR


@pytest.mark.parametrize("sizes", [(4, 3, 3, 16), (64, 1, 1, 16), (5, 1, 1, 16), (1, 7, 7, 8), (1008,), (2048,), (24,)])
def test_chunks_divide_the_reduction_and_hold_whole_registers(sizes):
    parts = chunks.divide(sizes)
    assert all(size % part == 0 for size, part in zip(sizes, parts, strict=True))
    assert parts[-1] % chunks.LANES == 0
    assert np.prod(parts) <= chunks.LONGEST
    first = next(index for index, part in enumerate(parts) if part > 1)
    assert parts[first + 1 :] == list(sizes[first + 1 :])  # what is summed first lies inside


@pytest.mark.parametrize("name", ["3x3", "1x1"])
@pytest.mark.parametrize("target", ["raspberry-pi/5", "ampere/altra"])
def test_sums_of_halves_stay_in_registers(target, name):
    w = Conv2d(1, 64, 56, 56, 64, (3, 3), pads=(1, 1, 1, 1), dtype="float32", half=True)
    w = w if name == "3x3" else replace(w, kernel=(1, 1), pads=(0, 0, 0, 0))
    lines = inner_loop(w, find(target), "fmla")
    at = [index for index, line in enumerate(lines) if re.match(r"fmla\s", line)]
    loop = lines[at[0] : at[-1] + 1]
    assert all(re.match(r"fmla\s+v\d+\.8h, v\d+\.8h, v\d+\.h\[\d\]", lines[index]) for index in at)
    assert len(at) >= 64
    assert len(at) / len(loop) > 0.8
    assert not any("[sp" in line for line in loop)


def float16_model():
    from models import residual_block

    import deburr

    return to_proto(deburr.optimize(read(residual_block(40)), "clean,convert-float16"))


@pytest.mark.parametrize(("name", "in_half"), [("raspberry-pi/5", True), ("rockchip/rk3568", True), ("raspberry-pi/4b", False)])
def test_only_a_cpu_with_half_arithmetic_gets_it(name, in_half):
    from program import lowered

    target = find(name)
    _, model, remarks = lowered(float16_model(), name)
    nodes = [node for node in model.graph.nodes if node.op == "Conv2d"]
    assert nodes
    assert all(bool(node.get("half", 0)) is in_half for node in nodes)
    assert ("multiplied in float16, up to 64 products" in remarks[0]) is in_half
    assert "fullfp16" in target.instruction_sets() or not in_half


def test_features_that_are_taken_away_count():
    target = find("raspberry-pi/5")
    less = replace(target, tvm={**target.tvm, "mattr": ["-fullfp16"]})
    assert target.multiplies_float16()
    assert not less.multiplies_float16()
    w = replace(SHAPES["1x1"], half=False)
    text = pipeline.library(build.kernel(w, less).function, less).mod.inspect_source("asm")
    assert ".8h" not in text
