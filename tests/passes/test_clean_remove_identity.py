import numpy as np
import pytest
from models import Builder
from onnx import helper

from deburr.ir.onnx_reader import read

from .rewriting import check, run, unchanged

PASS = "remove-identity"


@pytest.mark.parametrize(
    "operator",
    [
        "Identity(%a)",
        "Dropout(%a)",
        "Concat(%a) {axis=0}",
        "Sum(%a)",
        "Max(%a)",
        "Min(%a)",
        "Mean(%a)",
        "Cast(%a) {to=1}",
        "Transpose(%a) {perm=[0, 1]}",
        "Flatten(%a) {axis=1}",
        "Reshape(%a, %shape)",
        "Expand(%a, %shape)",
        "Pad(%a, %none)",
    ],
)
def test_hands_its_input_on(operator):
    constants = "const %shape = int64[2] [2, 3]\n const %none = int64[4] [0, 0, 0, 0]"
    check(
        PASS,
        f"input %x: float[2, 3]\n{constants}\n %a = Relu(%x)\n %b = {operator}\n %y: float[2, 3] = Exp(%b)\n return %y",
        f"input %x: float[2, 3]\n{constants}\n %a = Relu(%x)\n %y: float[2, 3] = Exp(%a)\n return %y",
    )


@pytest.mark.parametrize(
    "operator",
    [
        "Cast(%a) {to=11}",
        "Transpose(%a) {perm=[1, 0]}",
        "Transpose(%a)",
        "Flatten(%a) {axis=0}",
        "Reshape(%a, %shape)",
        "Pad(%a, %one)",
        "Max(%a, %a)",
    ],
)
def test_changes_something(operator):
    constants = "const %shape = int64[2] [3, 2]\n const %one = int64[4] [0, 0, 0, 1]"
    unchanged(PASS, f"input %x: float[2, 3]\n{constants}\n %a = Relu(%x)\n %y: ? = {operator}\n return %y")


def test_the_graph_output_keeps_its_name_and_declared_type():
    check(
        PASS,
        "input %x: float[batch, 3]\n %a: float[batch, 3] = Relu(%x)\n %y: float[batch, 3] = Identity(%a)\n return %y",
        "input %x: float[batch, 3]\n %y: float[batch, 3] = Relu(%x)\n return %y",
    )


def test_reshape_with_a_symbolic_batch_to_the_same_symbol():
    check(
        PASS,
        "input %x: float[batch, 3]\n %a = Relu(%x)\n %b: float[batch, 3] = Flatten(%a)\n %y = Exp(%b)\n return %y",
        "input %x: float[batch, 3]\n %a = Relu(%x)\n %y = Exp(%a)\n return %y",
    )


def test_an_output_fed_by_an_input_keeps_its_node():
    unchanged(
        PASS,
        "input %x: float[2]\n %y: float[2] = Identity(%x)\n return %y",
        "remove-identity: Identity -> y: the graph output y needs a node that produces it",
    )


def test_two_outputs_of_one_tensor():
    unchanged(
        PASS,
        "input %x: float[2]\n %a: float[2] = Relu(%x)\n %y: float[2] = Identity(%a)\n return %a, %y",
        "remove-identity: Identity -> y: the graph output y needs a node that produces it",
    )


def test_a_dropout_whose_mask_is_used_stays():
    unchanged(
        PASS,
        "input %x: float[2]\n %a = Relu(%x)\n %b, %mask = Dropout(%a)\n %y = Exp(%b)\n %z: ? = Not(%mask)\n return %y, %z",
        "remove-identity: Dropout -> b, mask: its output mask is used as well",
    )


def test_a_dropout_in_training_mode_stays():
    unchanged(
        PASS,
        "input %x: float[2]\n const %ratio = float[] 0.5\n const %train = bool[] true\n"
        "%a = Relu(%x)\n %b = Dropout(%a, %ratio, %train)\n %y = Exp(%b)\n return %y",
    )


def test_another_domain_is_opaque():
    unchanged(
        PASS,
        'ir_version 8\nopset "" 17\nopset "com.example" 1\n\n'
        "graph main {\n input %x: float[2]\n %a = com.example::Identity(%x)\n %y: float[2] = Relu(%a)\n return %y\n}\n",
    )


def test_inside_a_subgraph_an_outer_value_cannot_be_an_output():
    text = """input %c: bool[]
    input %x: float[2]
    %y: float[2] = If(%c) {then_branch=graph then {
      %a = Identity(%x)
      %p: float[2] = Relu(%a)
      return %p
    }, else_branch=graph other {
      %q: float[2] = Identity(%x)
      return %q
    }}
    return %y"""
    check(
        PASS,
        text,
        text.replace("      %a = Identity(%x)\n", "").replace("Relu(%a)", "Relu(%x)"),
        "remove-identity: Identity -> q: the graph output q needs a node that produces it",
    )


def test_axes_that_the_exporter_does_not_know_may_differ():
    """Paddle writes "?" at every open axis: two of them are no proof that a Reshape changes nothing."""
    builder = Builder()
    builder.node("Relu", [builder.node("Reshape", ["x", builder.constant(np.array([0, -1, 2]))], "r")], "y")
    proto = builder.model({"x": ["n", "?", "?"]}, {"y": ["n", "?", "?"]})
    proto.graph.value_info.append(helper.make_tensor_value_info("r", 1, ["n", "?", "?"]))
    given = read(proto)
    run(given, "remove-identity")
    assert [node.op for node in given.graph.nodes] == ["Reshape", "Relu"]
