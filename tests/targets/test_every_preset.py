"""Every preset: it compiles, links, fits its device, and gives the bits of x86 wherever its code can be executed here."""

import sys
from pathlib import Path

import numpy as np
import pytest
from models import conv_chain, samples
from program import quantized

from deburr.ir.errors import DeburrError
from deburr.ir.onnx_reader import read
from deburr.targets import compile as compiling
from deburr.targets.presets import built_in
from deburr.targets.target import find

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import presets


@pytest.fixture(scope="module")
def proto():
    return quantized(conv_chain())


@pytest.fixture(scope="module")
def model(proto):
    return read(proto)


@pytest.fixture(scope="module")
def inputs(proto):
    return samples(proto, presets.SAMPLES, 3)


@pytest.fixture(scope="module")
def expected(model, inputs, tmp_path_factory):
    return compiling.compile(model, tmp_path_factory.mktemp("host") / "b", target=find("host"), threads=1).run(inputs)


@pytest.mark.slow
@pytest.mark.parametrize("name", built_in())
def test_a_preset_fits_its_device_and_gives_the_bits_of_x86(name, model, inputs, expected, tmp_path):
    """As `benchmarks/presets.py` has it of the demo's model; the library is checked in `measure`."""
    try:
        row = presets.measure(model, find(name), tmp_path, inputs, expected)
    except DeburrError as error:
        if error.code != "E405":
            raise
        pytest.skip(f"{name} is not compiled here: {error}")
    assert row.preset == name
    assert row.library
    assert bool(row.ran_on) != bool(row.why), row
    assert row.same_bits is (True if row.ran_on else None), row


def test_a_program_that_gives_other_bits_is_noticed(model, inputs, expected, tmp_path):
    wrong = {name: array + np.float32(1) for name, array in expected.items()}
    assert presets.measure(model, find("host"), tmp_path, inputs, wrong).same_bits is False
