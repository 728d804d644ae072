"""Every rule of the verifier: a graph that breaks it and nothing before it, and what is said."""

import time

import models
import numpy as np
import pytest
from breaches import BREACHES, FLOAT4, branches, chain, functions, nodes, quantized, set_constant

from deburr.ir.attributes import Attribute, AttributeKind, AttributeReference
from deburr.ir.constants import Constant
from deburr.ir.errors import DeburrError
from deburr.ir.graph import Graph
from deburr.ir.model import Function, Model
from deburr.ir.onnx_reader import read
from deburr.ir.types import DType, TensorType
from deburr.ir.verify import LEVELS, verify

RULES = {rule.number: rule for tables in LEVELS.values() for table in tables for rule in table}


def level_of(number):
    return next(level for level, tables in LEVELS.items() if any(rule.number == number for table in tables for rule in table))


@pytest.mark.parametrize(("build", "breach", "number", "said"), BREACHES, ids=lambda item: getattr(item, "__name__", None))
def test_a_breach_is_named_with_rule_place_and_line(build, breach, number, said):
    model = build()
    verify(model, level_of(number))
    breach(model)
    with pytest.raises(DeburrError) as caught:
        verify(model, level_of(number))
    assert str(caught.value) == f"error[E104]: {number}, {RULES[number].explanation}, {said}"


def test_zero_point_of_another_type():
    model = quantized()
    verify(model, "quantized")
    set_constant(model, "kernel_z", np.zeros(2, np.uint8))
    rule = RULES["V304"]
    found = [item for scope in scopes_of(model) for item in rule.check(scope)]
    assert [item.message for item in found] == ["its zero point is uint8, its integers are int8"]
    set_constant(model, "kernel_z", np.zeros(1, np.int8))
    found = [item for scope in scopes_of(model) for item in rule.check(scope)]
    assert [item.message for item in found] == ["its zero point is int8[1], its scale is float[2]"]


def test_too_many_outputs():
    model = chain()
    node = nodes(model)["first"]
    node.outputs = (*node.outputs, None)
    with pytest.raises(DeburrError, match=r"V104, .*: it has 2 outputs, Relu gives 1 \["):
        verify(model)


def scopes_of(model):
    from deburr.ir.rules.core import scopes

    return scopes(model)


def test_every_rule_has_a_test():
    tested = {number for _, _, number, _ in BREACHES} | {"V104", "V304"}
    assert tested == set(RULES)


def test_numbers_and_explanations_are_unique():
    assert len({rule.explanation for rule in RULES.values()}) == len(RULES)
    rules = {id(rule) for tables in LEVELS.values() for table in tables for rule in table}
    assert len(rules) == len(RULES)


@pytest.mark.parametrize("build", [chain, branches, functions, quantized])
@pytest.mark.parametrize("level", ["imported", "clean", "quantized"])
def test_sound_models_pass(build, level):
    verify(build(), level)


@pytest.mark.parametrize("name", ["conv_chain", "residual_block", "depthwise_separable", "concat_branches", "branch_on_sum"])
def test_tiny_models_pass_at_every_level(name):
    for level in LEVELS:
        verify(read(getattr(models, name)()), level)


def test_an_unknown_level():
    with pytest.raises(ValueError, match="the levels are imported, clean, quantized, lowered"):
        verify(chain(), "done")


def test_what_is_no_breach():
    model = chain()
    graph = model.graph
    # An input with a default may leave dims open; a constant inside a function may be the caller's; the last Identity names y.
    default = graph.add_value("d", TensorType(DType.FLOAT, ("n",)))
    default.constant = Constant.of(np.ones(4, np.float32))
    graph.set_inputs([*graph.inputs, default])
    copy = graph.add_node("Identity", [graph.value("x")], ["copy"]).output()
    reference = {"value_float": Attribute(AttributeKind.FLOAT, AttributeReference("alpha"))}
    inner = Graph("f")
    inner.set_outputs([inner.add_node("Neg", [inner.add_node("Constant", [], 1, reference).output()]).output()])
    model.functions["local", "f", ""] = Function("f", "local", inner, attributes={"alpha": None}, opset_imports={"": 17})
    graph.set_outputs([*graph.outputs, copy])
    verify(model, "clean")


def test_a_long_line_is_cut():
    model = chain()
    nodes(model)["first"].set_attribute("numbers", list(range(500)))
    with pytest.raises(DeburrError) as caught:
        verify(model)
    assert str(caught.value).endswith("…]")
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)


def test_twenty_thousand_nodes_take_about_a_second():
    graph = Graph()
    value = graph.add_value("x", FLOAT4)
    graph.set_inputs([value])
    for index in range(20_000):
        value = graph.add_node("Relu", [value], [graph.add_value(f"y{index}", FLOAT4)]).output()
    graph.set_outputs([value])
    start = time.process_time()
    verify(Model(graph, {"": 17}), "clean")
    assert time.process_time() - start < 2
