import numpy as np
import pytest

from deburr.ir.evaluate import Evaluator
from deburr.ir.text import print_model

from .rewriting import check, inputs, model, run, unchanged

PASS = "fold-constants"


@pytest.mark.parametrize(
    ("written", "constant"),
    [
        ("value=float[2] [1.5, 2.0]", "float[2] [1.5, 2.0]"),
        ("value_float=0.5", "float[] 0.5"),
        ("value_floats=[0.5, 2.0]", "float[2] [0.5, 2.0]"),
    ],
)
def test_constant_nodes_become_initializers(written, constant):
    check(
        PASS,
        f"input %x: float[2]\n %c = Constant() {{{written}}}\n %y: float[2] = Mul(%x, %c)\n return %y",
        f"input %x: float[2]\n const %c = {constant}\n %y: float[2] = Mul(%x, %c)\n return %y",
    )


def test_a_constant_node_with_integers():
    check(
        PASS,
        "input %x: float[2, 3]\n %c = Constant() {value_ints=[3, 2]}\n %y: float[3, 2] = Reshape(%x, %c)\n return %y",
        "input %x: float[2, 3]\n const %c = int64[2] [3, 2]\n %y: float[3, 2] = Reshape(%x, %c)\n return %y",
    )


def test_a_chain_of_constants():
    check(
        PASS,
        """input %x: float[2]
        const %w = float[2] [4.0, 9.0]
        const %one = float[] 1.0
        %root = Sqrt(%w)
        %both = Add(%root, %one)
        %y: float[2] = Mul(%x, %both)
        return %y""",
        """input %x: float[2]
        const %w = float[2] [4.0, 9.0]
        const %one = float[] 1.0
        const %root = float[2] [2.0, 3.0]
        const %both = float[2] [3.0, 4.0]
        %y: float[2] = Mul(%x, %both)
        return %y""",
    )


def test_the_bits_are_those_that_the_node_gives():
    text = "input %x: float[64]\n const %w = {weights}\n %e = Exp(%w)\n %s = Erf(%e)\n %y: float[64] = Add(%x, %s)\n return %y"
    numbers = ", ".join(f"{number:.6f}" for number in np.random.default_rng(3).standard_normal(64))
    text = text.format(weights=f"float[64] [{numbers}]")
    changed = model(text)
    run(changed, PASS)
    data = inputs(changed)
    assert Evaluator(model(text)).run(data)["y"].tobytes() == Evaluator(changed).run(data)["y"].tobytes()
    assert [node.op for node in changed.graph.nodes] == ["Add"]


def test_sizes_that_are_known():
    """Of [batch, 3, 8, 8], everything but the batch."""
    check(
        "fold-constants,remove-dead-code",
        """input %x: float[batch, 3, 8, 8]
        const %three = int64[] 3
        const %inner = int64[2] [1, -1]
        input %i: int64[2]
        %all = Shape(%x)
        %width = Gather(%all, %three) {axis=0}
        %two = Gather(%all, %inner)
        %tail = Shape(%x) {start=1, end=3}
        %sum = Add(%tail, %two)
        %both = Mul(%sum, %width)
        %y: int64[2] = Sub(%i, %both)
        return %y""",
        """input %x: float[batch, 3, 8, 8]
        input %i: int64[2]
        const %both = int64[2] [48, 128]
        %y: int64[2] = Sub(%i, %both)
        return %y""",
    )


def test_sizes_that_a_slice_takes():
    check(
        "fold-constants,remove-dead-code",
        """input %x: float[batch, 3, 8, 5]
        const %start = int64[1] [-1]
        const %end = int64[1] [9223372036854775807]
        input %i: int64[1]
        %all = Shape(%x)
        %last = Slice(%all, %start, %end)
        %y: int64[1] = Sub(%i, %last)
        return %y""",
        """input %x: float[batch, 3, 8, 5]
        input %i: int64[1]
        const %last = int64[1] [5]
        %y: int64[1] = Sub(%i, %last)
        return %y""",
    )


def test_a_size_that_is_not_known():
    unchanged(PASS, "input %x: float[batch, 3]\n %s = Shape(%x)\n %y: int64[2] = Abs(%s)\n return %y")


def test_size():
    check(
        PASS,
        "input %x: float[2, 3]\n %n = Size(%x)\n %y: int64[] = Neg(%n)\n %z: float[2, 3] = Relu(%x)\n return %z, %y",
        "input %x: float[2, 3]\n const %n = int64[] 6\n %y: int64[] = Neg(%n)\n %z: float[2, 3] = Relu(%x)\n return %z, %y",
    )


def test_random_numbers_are_not_drawn_at_compile_time():
    given = model("input %x: float[2]\n const %p = float[2] [0.5, 0.5]\n %r = Bernoulli(%p)\n %y = Add(%x, %r)\n return %y")
    assert run(given, PASS) == ["fold-constants: Bernoulli -> r: it may give another result in every run"]


def test_a_quantized_weight_stays_small():
    unchanged(
        PASS,
        """input %x: float[2]
        const %w = int8[2] [3, -4]
        const %s = float[] 0.5
        const %z = int8[] 0
        %d = DequantizeLinear(%w, %s, %z)
        %y: float[2] = Add(%x, %d)
        return %y""",
    )


BLOW_UP = """input %x: float[1024, 512]
const %shape = int64[2] [1024, 512]
%zeros = ConstantOfShape(%shape)
%y: float[1024, 512] = Add(%x, %zeros)
return %y"""


def test_a_result_that_is_much_larger_than_its_inputs():
    unchanged(
        PASS,
        BLOW_UP,
        "fold-constants: ConstantOfShape -> zeros: its result would take 2097152 bytes, more than 1048576 and than its inputs",
    )


def test_the_limit_is_an_option():
    given = model(BLOW_UP)
    assert run(given, "fold-constants{limit=4000000}") == []
    assert [node.op for node in given.graph.nodes] == ["Add"]


def test_a_huge_result_is_refused_without_being_computed():
    text = BLOW_UP.replace("1024, 512", "1048576, 1048576")
    [remark] = run(model(text), PASS)
    assert "its result would take 4398046511104 bytes" in remark


def test_strings_are_left_alone():
    given = model(
        'input %x: string[2]\n %c = Constant() {value_strings=["a", "b"]}\n %d = StringConcat(%c, %c)\n'
        "%y: string[2] = StringConcat(%x, %d)\n return %y",
        opset=20,
    )
    assert run(given, PASS) == ["fold-constants: StringConcat -> d: it works on strings"]


def test_a_graph_output_keeps_its_producer():
    unchanged(PASS, "input %x: float[1]\n %y: float[] = Constant() {value_float=1.0}\n %z: float[1] = Relu(%x)\n return %y, %z")


def test_the_default_of_an_input_is_no_constant():
    unchanged(PASS, "input %x: float[1] = float[1] [1.0]\n %a = Exp(%x)\n %y: float[1] = Relu(%a)\n return %y")


def test_a_branch_reads_constants_from_outside():
    before = """input %c: bool[]
    input %x: float[2]
    const %w = float[2] [4.0, 9.0]
    %y: float[2] = If(%c) {then_branch=graph then {
      %root = Sqrt(%w)
      %p: float[2] = Mul(%x, %root)
      return %p
    }, else_branch=graph other {
      %q: float[2] = Neg(%x)
      return %q
    }}
    return %y"""
    check(PASS, before, before.replace("%root = Sqrt(%w)", "const %root = float[2] [2.0, 3.0]"))


def test_inside_a_function_the_callers_attribute_is_unknown():
    text = """ir_version 8
opset "" 17
opset "local" 1

graph main {
  input %x: float[2]
  %y: float[2] = local::Scale(%x) {factor=3.0}
  return %y
}

function local::Scale {
  opset "" 17
  attribute factor=2.0
  graph Scale {
    input %a: ?
    %f: ? = Constant() {value_float=float @factor}
    %one: ? = Constant() {value_float=4.0}
    %two: ? = Sqrt(%one)
    %g: ? = Mul(%f, %two)
    %b: ? = Mul(%a, %g)
    return %b
  }
}
"""
    changed = model(text)
    run(changed, f"{PASS},remove-dead-code")
    printed = print_model(changed)
    assert "const %two = float[] 2.0" in printed
    assert "%f = Constant() {value_float=float @factor}" in printed
    data = inputs(changed)
    np.testing.assert_array_equal(Evaluator(changed).run(data)["y"], Evaluator(model(text)).run(data)["y"])
