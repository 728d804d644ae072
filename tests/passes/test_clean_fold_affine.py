import numpy as np
import pytest
from models import Builder

from deburr.ir.onnx_reader import read

from .rewriting import assert_same, check, run, unchanged

PASS = "fold-affine"


def test_by_hand():
    """A bias that the exporter wrote as an Add, then a learnable affine block: (2x + 1) * 3 - 4 = 6x - 1."""
    check(
        PASS,
        """input %x: float[2, 1, 4, 4]
        const %w = float[1, 1, 1, 1] [2.0]
        const %bias = float[1, 1, 1, 1] [1.0]
        const %scale = float[1] [3.0]
        const %shift = float[] [4.0]
        %c = Conv(%x, %w)
        %b = Add(%c, %bias)
        %s = Mul(%scale, %b)
        %y: float[2, 1, 4, 4] = Sub(%s, %shift)
        return %y""",
        """input %x: float[2, 1, 4, 4]
        const %w = float[1, 1, 1, 1] [6.0]
        const %bias = float[1, 1, 1, 1] [1.0]
        const %scale = float[1] [3.0]
        const %shift = float[] [4.0]
        const %w_bias = float[1] [-1.0]
        %y: float[2, 1, 4, 4] = Conv(%x, %w, %w_bias)
        return %y""",
    )


@pytest.mark.parametrize("shape", [(), (1,), (8, 1, 1), (1, 8, 1, 1), (1, 1, 1, 1)])
@pytest.mark.parametrize(
    ("op", "swapped"), [("Add", 0), ("Add", 1), ("Sub", 0), ("Sub", 1), ("Mul", 0), ("Mul", 1), ("Div", 0)]
)
def test_every_operator_and_shape(op, swapped, shape):
    builder = Builder()
    inputs = [builder.conv("x", 4, 8), builder.constant(builder.random.uniform(0.5, 2, shape).astype(np.float32))]
    builder.node(op, inputs[::-1] if swapped else inputs, "y")
    given = builder.model({"x": ["batch", 4, 6, 6]}, {"y": ["batch", 8, 6, 6]})
    changed = read(given)
    assert run(changed, PASS) == []
    assert [node.op for node in changed.graph.nodes] == ["Conv"]
    assert_same(read(given), changed)


@pytest.mark.parametrize(("layer", "weights", "attributes", "output"), [
    ("ConvTranspose", (4, 3, 3, 3), {"group": 2}, [6, 6, 6]),
    ("Gemm", (4, 5), {"alpha": 0.5, "beta": 3.0}, [5]),
    ("Gemm", (5, 4), {"transB": 1}, [5]),
])  # fmt: skip
def test_other_layers(layer, weights, attributes, output):
    builder = Builder()
    channels = output[0]
    given = builder.node(layer, ["x", builder.weight(*weights), builder.weight(channels)], **attributes)
    ones = [1] * (len(output) - 1)
    builder.node("Mul", [builder.node("Add", [given, builder.weight(channels, *ones)]), builder.weight(channels, *ones)], "y")
    proto = builder.model({"x": ["batch", 4, *[4 for _ in ones]]}, {"y": ["batch", *output]})
    changed = read(proto)
    assert run(changed, PASS) == []
    assert [node.op for node in changed.graph.nodes] == [layer]
    assert_same(read(proto), changed)


HEAD = """input %x: float[2, 2, 3, 3]
const %w = float[2, 2, 1, 1] [1.0, 2.0, 3.0, 4.0]
const %zeros = float[2, 1, 1] [1.0, 0.0]
const %columns = float[3] [1.0, 2.0, 3.0]
const %samples = float[2, 1, 1, 1] [1.0, 2.0]
const %deeper = float[1, 1, 1, 1, 1] [2.0]
"""
TYPE = "float[2, 2, 3, 3]"


@pytest.mark.parametrize(
    ("body", "remark"),
    [
        (f"%y: {TYPE} = Add(%c, %columns)\n return %y", "Add -> y: columns holds more than one number for each channel"),
        (f"%y: {TYPE} = Mul(%c, %samples)\n return %y", "Mul -> y: samples holds more than one number for each channel"),
        (
            "%y: float[1, 2, 2, 3, 3] = Mul(%c, %deeper)\n return %y",
            "Mul -> y: deeper holds more than one number for each channel",
        ),
        (
            f"%y: {TYPE} = Div(%c, %zeros)\n return %y",
            "Div -> y: the folded weights of Conv -> c would not be finite in float",
        ),
        (
            f"%y: {TYPE} = Mul(%c, %zeros)\n %z: {TYPE} = Relu(%c)\n return %y, %z",
            "Mul -> y: its input c is used elsewhere as well",
        ),
    ],
)
def test_stays(body, remark):
    unchanged(PASS, f"{HEAD}%c = Conv(%x, %w)\n{body}", f"{PASS}: {remark}")


def test_what_is_not_affine_is_none_of_its_business():
    unchanged(PASS, f"{HEAD}%c = Conv(%x, %w)\n%y: {TYPE} = Div(%zeros, %c)\n return %y")
    unchanged(PASS, f"{HEAD}%c = Relu(%x)\n%y: {TYPE} = Mul(%zeros, %c)\n return %y")


def test_one_channel_that_the_constant_would_make_several():
    unchanged(
        PASS,
        """input %x: float[2, 1, 3, 3]
        const %w = float[1, 1, 1, 1] [1.0]
        const %four = float[4, 1, 1] [1.0, 2.0, 3.0, 4.0]
        %c = Conv(%x, %w)
        %y: float[2, 4, 3, 3] = Mul(%c, %four)
        return %y""",
        f"{PASS}: Mul -> y: four holds more than one number for each channel",
    )
