"""Edits keep use lists, order, names and revision consistent, whatever their order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deburr.ir.graph import Graph
from deburr.ir.model import Function, Model
from deburr.ir.types import DType, TensorType
from deburr.ir.value import Use


def snapshot(graph: Graph):
    """Everything that a reader of the graph can see."""
    nodes = [
        (node, node.op, node.inputs, node.outputs, {name: entry.value for name, entry in node.attributes.items()})
        for node in graph.nodes
    ]
    values = {
        value.name: (value, value.type, None if value.constant is None else value.constant.digest) for value in graph.values
    }
    return nodes, values, graph.inputs, graph.outputs


def check(graph: Graph) -> None:
    nodes = list(graph.nodes)
    assert len(nodes) == len(graph) == len(set(nodes))
    backward, node = [], graph._last
    while node is not None:
        backward.append(node)
        node = node._previous
    assert backward[::-1] == nodes
    assert all(node.graph is graph for node in nodes)
    uses: dict = {value: set() for value in graph.values}
    for node in nodes:
        assert not node.inputs or node.inputs[-1] is not None
        for index, value in enumerate(node.inputs):
            if value is not None:
                uses[value].add(Use(node, index))
        for index, value in enumerate(node.outputs):
            if value is not None:
                assert (value.producer, value.index) == (node, index)
    for value in graph.values:
        assert graph.value(value.name) is value
        assert set(value.uses) == uses[value]
        assert value.producer is None or value.producer in nodes
    assert set(graph.inputs) | set(graph.outputs) <= set(graph.values)


class Editor:
    """One random edit at a time; refused ones must leave no trace."""

    def __init__(self, draw) -> None:
        self.draw = draw
        self.graph = Graph()
        self.graph.set_inputs([self.graph.add_value("x", TensorType(DType.FLOAT, (2,)))])
        self.graph.add_node("Relu", [self.graph.value("x")])

    def pick(self, items):
        items = list(items)
        return items[self.draw(st.integers(0, len(items) - 1))] if items else None

    def edit(self) -> None:
        before, revision = snapshot(self.graph), self.graph.revision
        kind = self.pick([name for name in dir(self) if name.startswith("do_")])
        try:
            getattr(self, kind)()
        except ValueError:
            assert snapshot(self.graph) == before
        check(self.graph)
        assert (self.graph.revision == revision) == (snapshot(self.graph) == before), kind

    def do_add_node(self):
        inputs = [self.pick([*self.graph.values, None]) for _ in range(self.draw(st.integers(0, 3)))]
        self.graph.add_node(
            self.pick(["Add", "Relu"]), inputs, self.draw(st.integers(0, 2)), before=self.pick([*self.graph.nodes, None])
        )

    def do_remove(self):
        if len(self.graph):
            self.graph.remove(self.pick(self.graph.nodes))

    def do_move(self):
        if len(self.graph):
            where = self.pick(["before", "after"])
            self.graph.move(self.pick(self.graph.nodes), **{where: self.pick([*self.graph.nodes, None])})

    def do_set_input(self):
        if len(self.graph):
            self.pick(self.graph.nodes).set_input(self.draw(st.integers(0, 3)), self.pick([*self.graph.values, None]))

    def do_rename(self):
        self.graph.rename(self.pick(self.graph.values), self.pick(["x", "a", "b", "", *(v.name for v in self.graph.values)]))

    def do_replace_uses(self):
        self.pick(self.graph.values).replace_uses(self.pick(self.graph.values))

    def do_set_attribute(self):
        if len(self.graph):
            self.pick(self.graph.nodes).set_attribute("axis", self.pick([None, 0, 1, [1, 2], "text"]))

    def do_set_constant(self):
        free = [value for value in self.graph.values if value.producer is None and not value.is_input]
        if free:
            self.graph.set_constant(self.pick(free), self.pick([None, np.zeros(2), np.ones(2), np.zeros(2, np.float32)]))

    def do_add_constant(self):
        self.graph.add_constant(np.zeros(2), self.pick(["w", "x", "constant_1"]))

    def do_remove_value(self):
        self.graph.remove_value(self.pick(self.graph.values))

    def do_set_type(self):
        self.graph.set_type(
            self.graph.value(self.pick(self.graph.values).name), self.pick([None, TensorType(DType.INT8, (1,))])
        )

    def do_set_outputs(self):
        self.graph.set_outputs([value for value in {self.pick(self.graph.values), self.pick(self.graph.values)} if value])


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_edits(data):
    editor = Editor(data.draw)
    for _ in range(data.draw(st.integers(1, 25))):
        if not editor.graph.values:
            return
        editor.edit()


def chain(length: int = 4) -> Graph:
    graph = Graph()
    value = graph.add_value("x", TensorType(DType.FLOAT, (2,)))
    graph.set_inputs([value])
    for number in range(length):
        value = graph.add_node("Relu", [value], [f"v{number}"], name=f"n{number}").output()
    graph.set_outputs([value])
    return graph


def test_walk_survives_edits():
    graph, seen = chain(), []
    for node in graph.nodes:
        seen.append(node.name)
        if node.name == "n1":
            following = node.output().uses[0].node
            following.set_input(0, node.input(0))
            graph.remove(node)
            graph.add_node("Neg", [graph.value("x")], name="new", after=following)
    assert seen == ["n0", "n1", "n2", "new", "n3"]


def test_output_keeps_its_name_when_replaced():
    graph = chain()
    last, before = graph.outputs[0], graph.value("v2")
    assert last.replace_uses(before)
    assert [(value.name, value) for value in graph.outputs] == [("v3", before)]
    assert last.name == "v3_1"
    graph.remove(last.producer)
    check(graph)


def test_output_cannot_become_an_input():
    graph = chain(1)
    assert not graph.outputs[0].replace_uses(graph.value("x"))
    assert [value.name for value in graph.outputs] == ["v0"]


def test_removal_is_refused_while_a_value_is_read():
    graph = chain()
    with pytest.raises(ValueError, match=r"^Relu 'n0' cannot be removed: %v0: \? is still used$"):
        graph.remove(next(graph.nodes))


def test_subgraph_edits_count_in_the_graphs_around_and_names_are_fresh_in_all():
    graph, inner = chain(), Graph("inner")
    node = graph.add_node("If", [graph.value("x")], ["y"], {"then_branch": inner})
    made = inner.add_node("Neg", [graph.value("v0")], ["v0"])
    assert made.output().name == "v0_1"
    assert graph.fresh_name("v0_1") == "v0_1_1"
    revision = graph.revision
    made.set_attribute("axis", 1)
    assert graph.revision > revision
    assert Use(made, 0) in graph.value("v0").uses
    graph.remove(node)
    assert Use(made, 0) not in graph.value("v0").uses
    assert list(graph.walk()) == [graph]


def test_revision_of_a_model_grows_when_a_function_goes():
    function = Function("f", "local", chain())
    model = Model(chain(), {"": 17}, {("local", "f", ""): function})
    before = model.revision
    model.remove_function(function)
    assert model.revision > before
    revision = model.revision
    model.import_opset("", 17)
    assert model.revision == revision
    model.import_opset("", 18)
    assert model.revision == revision + 1
