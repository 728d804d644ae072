"""Intermediate values by running no more of a model than they need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from deburr.ir.evaluate import Evaluator
from deburr.ir.graph import Graph
from deburr.ir.model import Model
from deburr.ir.node import Node
from deburr.ir.samples import Samples
from deburr.ir.types import Array, TensorType
from deburr.ir.value import Value


def capture_prefix(model: Model, values: Sequence[Value], samples: Samples, batch: int) -> Iterator[list[Array]]:
    """The values (of the main graph) batch by batch, in the order asked for."""
    names = [value.name for value in values]
    if all(value.is_input for value in values):  # ONNX Runtime takes no model without nodes
        yield from ([inputs[name] for name in names] for inputs in samples.batches(batch))
        return
    evaluator = Evaluator(prefix(model, values), capture=names, optimize=True)
    for inputs in samples.batches(batch):
        results = evaluator.run(inputs)
        yield [results[name] for name in names]


def prefix(model: Model, values: Sequence[Value]) -> Model:
    """A model that computes the values and nothing else, sharing constants with `model`; `model` itself if it has subgraphs
    there, because a subgraph knows one parent only."""
    needed = ancestors(values)
    if any(node.subgraphs for node in needed):
        return model
    nodes = [node for node in model.graph.nodes if node in needed]
    return part(model, nodes, [value for value in dict.fromkeys(values) if value.producer is not None], model.graph.inputs)


def part(model: Model, nodes: Sequence[Node], results: Sequence[Value], inputs: Sequence[Value] = ()) -> Model:
    """A model of these nodes alone, without subgraphs, in their order; it shares constants with `model`.

    :param inputs: of the part, besides what the nodes read and do not compute.
    """
    graph = Graph(model.graph.name)
    copies: dict[Value, Value] = {}

    def copy(value: Value | None) -> Value | None:
        if value is not None and value not in copies:
            copies[value] = graph.add_value(value.name, value.type)
            copies[value].constant = value.constant
        return copies[value] if value is not None else None

    made = {value for node in nodes for value in node.outputs}
    read = [value for node in nodes for value in node.inputs if value is not None and value not in made]
    given = list(dict.fromkeys([*inputs, *(value for value in read if not value.is_constant)]))
    for value in (*given, *results):
        copied = copy(value)
        # Of any size: what was inferred within the model may name the sizes of one batch.
        if copied is not None and isinstance(value.type, TensorType) and not value.is_input:
            graph.set_type(copied, TensorType(value.type.dtype))
    graph.set_inputs([copies[value] for value in given])
    for node in nodes:
        arguments, outputs = [copy(value) for value in node.inputs], [copy(value) for value in node.outputs]
        graph.add_node(node.op, arguments, outputs, node.attributes, domain=node.domain, name=node.name)
    graph.set_outputs([copies[value] for value in results])
    return Model(graph, dict(model.opset_imports), model.functions, ir_version=model.ir_version)


def ancestors(values: Sequence[Value]) -> set[Node]:
    found: set[Node] = set()
    stack = [value.producer for value in values if value.producer is not None]
    while stack:
        node = stack.pop()
        if node not in found:
            found.add(node)
            stack.extend(value.producer for value in node.inputs if value is not None and value.producer is not None)
    return found
