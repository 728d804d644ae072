"""Layers that are mostly weights ask for the next ones in time, and their sums stay in registers all the same."""

import re
from dataclasses import replace

import pytest
from kernel_reference import TARGETS

from deburr.targets.kernels import build
from deburr.targets.kernels.workload import Conv2d, Requantize
from deburr.targets.schedules import pipeline

DEEP = Conv2d(1, 512, 7, 7, 512, (3, 3), pads=(1, 1, 1, 1), requantize=Requantize(0))


def assembly(workload):
    target = TARGETS["avx512vnni"]
    return pipeline.library(build.kernel(workload, target).function, target).mod.inspect_source("asm")


@pytest.mark.parametrize("workload", [DEEP, replace(DEEP, dtype="float32", requantize=None)], ids=["int8", "float32"])
def test_weights_are_asked_for_among_the_products(workload):
    text = assembly(workload)
    assert "prefetch" in text
    multiplication = "vpdpbusd" if workload.dtype == "uint8" else "vfmadd|vmulps"
    block = max(re.split(r"\n(?=\.L\w+:)", text), key=lambda block: len(re.findall(multiplication, block)))
    loop = re.split(r"\n\s+j[a-z]+\s", block)[0]
    assert len(re.findall(multiplication, loop)) >= 14
    assert not re.search(r"vmov\w+\s+%zmm\d+, .*\(%", loop)  # a store


def test_where_data_is_most_of_it_nothing_is_asked_for():
    assert "prefetch" not in assembly(replace(DEEP, in_channels=64, out_channels=64, in_height=56, in_width=56))
