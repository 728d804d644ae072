import pytest
from models import conv_chain

from deburr.ir.errors import DeburrError
from deburr.ir.onnx_reader import read
from deburr.passes.pipeline import parse

from .rewriting import assert_same, run

CASES = [(9, "raise-opset", 13), (9, "raise-opset{version=17}", 17), (17, "raise-opset", 17)]


@pytest.mark.parametrize(("before", "pipeline", "after"), CASES)
def test_at_least(before, pipeline, after):
    proto = conv_chain(opset=before)
    changed = read(proto)
    assert run(changed, pipeline) == []
    assert changed.opset == after
    assert_same(read(proto), changed)


def test_a_version_that_nobody_knows():
    with pytest.raises(DeburrError, match=r"error\[E105\]"):
        run(read(conv_chain()), "raise-opset{version=999}")


def test_a_version_that_makes_no_sense():
    with pytest.raises(DeburrError) as caught:
        parse("raise-opset{version=0}")
    assert str(caught.value) == (
        "error[E203]: raise-opset does not take these options, in the pipeline, at column 1, 'raise-opset': "
        "version must be at least 1"
    )
