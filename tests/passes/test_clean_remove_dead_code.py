from deburr.ir.text import print_model

from .rewriting import check, model, run, unchanged

PASS = "remove-dead-code"


def test_a_chain_that_nothing_uses_goes_with_its_constants():
    check(
        PASS,
        """input %x: float[2]
        const %w = float[2] [1.0, 2.0]
        const %v = float[2] [3.0, 4.0]
        %a = Mul(%x, %w)
        %b = Exp(%a)
        %y: float[2] = Add(%x, %v)
        return %y""",
        "input %x: float[2]\n const %v = float[2] [3.0, 4.0]\n %y: float[2] = Add(%x, %v)\n return %y",
    )


def test_inputs_stay():
    unchanged(PASS, "input %x: float[2]\n input %unused: float[3]\n %y: float[2] = Relu(%x)\n return %y")


def test_what_may_have_an_effect_stays():
    unchanged(
        PASS,
        'ir_version 8\nopset "" 17\nopset "com.example" 1\n\n'
        "graph main {\n input %x: float[2]\n %a = com.example::Log(%x)\n %y: float[2] = Relu(%x)\n return %y\n}\n",
        "remove-dead-code: com.example.Log -> a: nothing uses it, but it may have an effect: "
        "com.example 1 has no operator Log that we know",
    )


def test_random_numbers_stay():
    [remark] = run(model("input %x: float[2]\n %a = RandomNormal() {shape=[2]}\n %y: float[2] = Relu(%x)\n return %y"), PASS)
    assert remark.endswith("it may have an effect: draws random numbers")


def test_a_dead_branch_frees_what_it_read_outside():
    check(
        PASS,
        """input %c: bool[]
        input %x: float[2]
        %a = Exp(%x)
        %dead = If(%c) {then_branch=graph then {
          %p: float[2] = Relu(%a)
          return %p
        }, else_branch=graph other {
          %q: float[2] = Neg(%a)
          return %q
        }}
        %y: float[2] = Abs(%x)
        return %y""",
        "input %c: bool[]\n input %x: float[2]\n %y: float[2] = Abs(%x)\n return %y",
    )


FUNCTIONS = """ir_version 8
opset "" 17
opset "local" 1

graph main {
  input %x: float[2]
  %y: float[2] = local::Used(%x)
  return %y
}

function local::Used {
  opset "" 17
  opset "local" 1
  graph Used {
    input %a: ?
    %b: ? = local::Inner(%a)
    return %b
  }
}

function local::Inner {
  opset "" 17
  graph Inner {
    input %a: ?
    %dead: ? = Exp(%a)
    %b: ? = Relu(%a)
    return %b
  }
}

function local::Unused {
  opset "" 17
  graph Unused {
    input %a: ?
    %b: ? = Neg(%a)
    return %b
  }
}
"""


def test_functions_that_nothing_calls():
    given = model(FUNCTIONS)
    revision = given.revision
    assert run(given, PASS) == []
    assert [function.name for function in given.functions.values()] == ["Used", "Inner"]
    assert "%dead" not in print_model(given)
    assert given.revision > revision
