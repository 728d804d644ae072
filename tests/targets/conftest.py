"""Makes `from kernel_reference import ...` work in the tests of this folder; and the model that tests of devices compile."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def model():
    """A quantized residual block: small, and all that devices differ in is in it."""
    from models import residual_block
    from program import quantized

    return quantized(residual_block(24, 12))


@pytest.fixture(scope="session")
def bundle(tmp_path_factory, model):
    """For this machine, two samples at a time or four, with the program that runs it. Nobody writes into it."""
    from deburr.ir.onnx_reader import read
    from deburr.targets import compile as compiling
    from deburr.targets.target import find

    path = tmp_path_factory.mktemp("bundles") / "here"
    compiling.compile(read(model), path, target=find("host"), threads=1, batch=(2, 4), runtime=True)
    return path
