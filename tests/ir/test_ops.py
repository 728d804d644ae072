"""Facts about operators, held to every schema that onnx ships."""

import numpy as np
import onnx.defs
import pytest

from deburr.ir.graph import Graph
from deburr.ir.model import Function, Model
from deburr.ir.op_kinds import DETERMINISTIC, KINDS, OPAQUE_REASONS, OpKind
from deburr.ir.ops import facts, facts_in, is_pure, schema_of

NEWEST = onnx.defs.onnx_opset_version()
RANDOM = {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}


def node(op, inputs=1, outputs=1, domain="", **attributes):
    graph = Graph()
    values = [graph.add_value(f"x{index}") for index in range(inputs)]
    return graph.add_node(op, values, outputs, attributes, domain=domain)


def newest_schemas():
    return {(schema.domain, schema.name): schema for schema in onnx.defs.get_all_schemas()}.values()


def test_every_operator_has_a_kind_or_a_reason_to_be_opaque():
    for schema in newest_schemas():
        assert (schema.name in KINDS) != (schema.name in OPAQUE_REASONS), schema.name


def test_the_tables_name_only_operators_that_exist():
    names = {schema.name for schema in onnx.defs.get_all_schemas_with_history()}
    assert {*KINDS, *OPAQUE_REASONS, *DETERMINISTIC} <= names


def test_every_operator_is_known_at_its_opset():
    for schema in newest_schemas():
        found = facts(node(schema.name, domain=schema.domain), NEWEST)
        if not schema.deprecated:
            assert found.known, schema.name
            assert found.schema.since_version == schema.since_version
            assert found.kind is not OpKind.OPAQUE or found.reason


def test_what_the_schema_calls_random_is_never_pure_in_any_version():
    judged_by_node = {"Dropout"} | {name for name, kind in KINDS.items() if kind is OpKind.CONTROL_FLOW}
    random = set()
    for schema in onnx.defs.get_all_schemas_with_history():
        found = facts(node(schema.name, domain=schema.domain), schema.since_version)
        if not schema.deprecated and schema.node_determinism != onnx.defs.OpSchema.NodeDeterminism.Deterministic:
            random.add(schema.name)
            if schema.name not in judged_by_node | DETERMINISTIC:
                assert not found.pure
                assert not found.deterministic
                assert found.reason == "draws random numbers"
    assert random - judged_by_node - DETERMINISTIC == RANDOM
    assert {name for name, kind in KINDS.items() if kind is OpKind.RANDOM} == RANDOM


@pytest.mark.parametrize(
    ("op", "kind"),
    [
        ("Relu", OpKind.UNARY), ("Add", OpKind.BROADCAST), ("Transpose", OpKind.MOVEMENT), ("Conv", OpKind.CONTRACTION),
        ("MaxPool", OpKind.POOLING), ("Softmax", OpKind.NORMALIZATION), ("ReduceSum", OpKind.REDUCTION),
        ("Shape", OpKind.SHAPE), ("Range", OpKind.GENERATOR),
        ("QuantizeLinear", OpKind.QUANTIZATION), ("LSTM", OpKind.OPAQUE),
    ],
)  # fmt: skip
def test_kinds(op, kind):
    found = facts(node(op), NEWEST)
    assert found.kind is kind
    assert found.pure
    assert found.is_elementwise == (kind in (OpKind.UNARY, OpKind.BROADCAST))
    assert found.is_layout_agnostic == (kind is OpKind.UNARY)


def test_an_unknown_domain_or_version_is_opaque_and_impure():
    for unknown in (facts(node("Gelu", domain="com.example"), NEWEST), facts(node("Gelu"), 19), facts(node("Relu"), 0)):
        assert not unknown.known
        assert not unknown.pure
        assert not unknown.deterministic
        assert unknown.kind is OpKind.OPAQUE
    assert facts(node("Gelu"), 19).reason == "ai.onnx 19 has no operator Gelu that we know"
    assert facts(node("Gelu"), 20).pure


def test_the_schema_is_the_one_in_force():
    assert schema_of("BatchNormalization", "", 13).since_version == 9
    assert schema_of("BatchNormalization", "ai.onnx", 14).since_version == 14
    assert schema_of("Nothing", "", 14) is None


def test_deprecated_operators_are_known_up_to_their_end():
    assert facts(node("Upsample", 2), 9).known
    assert not facts(node("Upsample", 2), 13).known


@pytest.mark.parametrize(
    ("opset", "attributes", "outputs", "pure"),
    [(1, {}, 1, False), (6, {"is_test": 1}, 1, True), (9, {}, 1, True), (9, {}, 5, False), (14, {}, 1, True),
     (15, {"training_mode": 0}, 1, True), (15, {"training_mode": 1}, 3, False)],
)  # fmt: skip
def test_batch_normalization_in_training_mode_is_impure(opset, attributes, outputs, pure):
    found = facts(node("BatchNormalization", 5, outputs, **attributes), opset)
    assert found.pure is pure
    assert found.reason == ("" if pure else "runs in training mode")


@pytest.mark.parametrize(
    ("opset", "attributes", "pure"), [(6, {}, False), (6, {"is_test": 1}, True), (7, {}, True), (13, {}, True)]
)
def test_dropout_of_old_opsets(opset, attributes, pure):
    assert facts(node("Dropout", 1, 2, **attributes), opset).pure is pure


@pytest.mark.parametrize(("mode", "pure"), [(False, True), (True, False), (None, False)])
def test_dropout_is_pure_where_its_training_mode_is_known_to_be_false(mode, pure):
    graph = Graph()
    switch = graph.add_value("mode") if mode is None else graph.add_constant(np.array(mode))
    drop = graph.add_node("Dropout", [graph.add_value("x"), None, switch])
    assert facts(drop, 13).pure is pure


def branch(op, domain=""):
    graph = Graph("branch")
    graph.set_outputs([graph.add_node(op, [], domain=domain).output()])
    return graph


@pytest.mark.parametrize(("inner", "domain", "pure"), [("Constant", "", True), ("RandomNormal", "", False), ("Op", "x", False)])
def test_a_node_with_subgraphs_is_pure_if_and_only_if_they_are(inner, domain, pure):
    nested = node("If", 1, 1, then_branch=branch("Constant"), else_branch=branch(inner, domain))
    outer_body = Graph("outer")
    condition = outer_body.add_value("c")
    outer = outer_body.add_node("If", [condition], 1, {"then_branch": nested.owner, "else_branch": branch("Constant")})
    for found in (facts(nested, NEWEST), facts(outer, NEWEST)):
        assert found.kind is OpKind.CONTROL_FLOW
        assert found.pure is pure
        assert found.reason == ("" if pure else "a subgraph holds an impure node")


def function(name, *ops):
    graph = Graph(name)
    for op, domain in ops:
        graph.add_node(op, [], domain=domain)
    return Function(name, "local", graph, opset_imports={"": 20, "local": 1})


def test_a_function_call_is_pure_if_and_only_if_all_of_the_function_is():
    functions = [
        function("clean", ("Relu", ""), ("inner", "local")),
        function("inner", ("Gelu", "")),
        function("random", ("RandomNormal", "")),
        function("calls_random", ("random", "local")),
        function("endless", ("endless", "local")),
    ]
    graph = Graph()
    model = Model(graph, {"ai.onnx": 18, "local": 1}, {(f.domain, f.name, ""): f for f in functions})
    calls = {f.name: graph.add_node(f.name, [], domain="local") for f in functions}
    assert {name: is_pure(call, model) for name, call in calls.items()} == {
        "clean": True, "inner": True, "random": False, "calls_random": False, "endless": False,
    }  # fmt: skip
    assert facts_in(calls["endless"], model).reason.startswith("the function endless holds local.endless")
    assert not facts(calls["clean"], 20).pure  # without the model, a call is opaque
    gelu = next(functions[1].graph.nodes)
    assert is_pure(gelu, model)  # opset 20, as the function imports it
    assert not is_pure(graph.add_node("Gelu", []), model)  # opset 18, as the model does
