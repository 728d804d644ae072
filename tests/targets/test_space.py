"""The search space: everything in it is legal and computes the same bits; the default is in it."""

from dataclasses import replace
from random import Random

import numpy as np
import pytest
from kernel_reference import TARGETS, execute

from deburr.targets.kernels import build
from deburr.targets.kernels.workload import Conv2d, MatMul, Operand, Pool2d, Requantize
from deburr.targets.schedules import search, space

DENSE = Conv2d(1, 64, 14, 13, 96, (3, 3), pads=(1, 1, 1, 1), requantize=Requantize(5))
WORKLOADS = {
    "dense": DENSE,
    "strided": replace(DENSE, strides=(2, 2), kernel=(1, 1), pads=(0, 0, 0, 0)),
    "gemm": Conv2d(4, 64, 1, 1, 80, (1, 1), requantize=Requantize(0)),
    "grouped": replace(DENSE, groups=4),
    "depthwise": Conv2d(1, 96, 14, 13, 96, (3, 3), pads=(1, 1, 1, 1), groups=96, requantize=Requantize(5)),
    "winograd": Conv2d(1, 96, 14, 13, 96, (3, 3), pads=(1, 1, 1, 1), dtype="float32"),
    "product": MatMul(Operand((40, 64), (0, 1)), None, Operand((40, 96), (0, 1)), (), 40, 96, 64, requantize=Requantize(5)),
    "attention": MatMul(
        Operand((3, 14, 32), (0, 1, 2)),
        Operand((3, 48, 32), (0, 2, 1)),
        Operand((3, 14, 48), (0, 1, 2)),
        (3,),
        14,
        48,
        32,
        a_zero_point=9,
        b_zero_point=7,
    ),
    "max": Pool2d("max", 1, 64, 15, 16, (3, 3), (2, 2), (1, 1, 1, 1)),
    "average": Pool2d("average", 1, 64, 7, 7, (7, 7), multiplier=1 / 49, requantize=Requantize(3)),
}


def blocked(workload, target):
    if isinstance(workload, Pool2d | MatMul):
        return replace(workload, block=target.block)
    return replace(workload, in_block=target.block, out_block=target.block)


@pytest.mark.parametrize("name", list(WORKLOADS))
@pytest.mark.parametrize("isa", list(TARGETS))
def test_every_schedule_of_the_space_gives_the_bits_of_the_default(isa, name):
    target = TARGETS[isa]
    workload = blocked(WORKLOADS[name], target)
    searched, random, rng = space.space(workload, target), Random(1), np.random.default_rng(0)
    assert searched.legal(searched.default)
    arrays = {
        argument.name: rng.integers(0, 100, argument.shape).astype(argument.dtype)
        for argument in build.kernel(workload, target).arguments[:-1]
    }
    expected = execute(workload, target, arrays)
    for drawn in [
        searched.sample(random),
        searched.mutate(searched.default, random),
        searched.mutate(searched.default, random),
    ]:
        assert searched.legal(drawn), drawn
        # Whatever the tile, sums are taken in one order.
        np.testing.assert_array_equal(execute(workload, target, arrays, drawn), expected, err_msg=str(drawn))


@pytest.mark.parametrize("name", list(WORKLOADS))
def test_the_space_holds_many_schedules_and_no_two_ways_of_writing_one(name):
    target = TARGETS["avx512vnni"]
    searched, random = space.space(blocked(WORKLOADS[name], target), target), Random(0)
    drawn = {searched.sample(random) for _ in range(60)} - {None}
    assert len(drawn) >= (6 if name in ("gemm", "average") else 30)
    assert all(searched.legal(schedule) for schedule in drawn)


def test_a_schedule_that_does_not_fit_is_not_legal():
    target = TARGETS["avx512vnni"]
    searched = space.space(DENSE, target)
    default = searched.default
    for wrong in [{"ow_tile": 40}, {"oc_tile": 6, "ow_tile": 13}, {"oc_task": 5}, {"oh_task": 9}, {"unroll": 4}, {"n_tile": 2}]:
        assert not searched.legal(replace(default, **wrong)), wrong
    with pytest.raises(ValueError, match="width"):
        search.from_fields({"oc_tile": 1, "width": 96})
    with pytest.raises(ValueError, match="oc_tile: True is no int"):
        search.from_fields({"oc_tile": True})
    assert search.from_fields(search.to_fields(default)) == default
