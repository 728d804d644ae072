"""What onnx-graphsurgeon is given of a model: nodes, edges, plain attributes, subgraphs and functions.

It would copy or convert tensors, flatten types, skip some attributes and crash on a few. The reader takes those from the
ModelProto, node by node beside what graphsurgeon made, so everything that a file can say survives.
"""

from __future__ import annotations

from typing import Any

from deburr.ir.attributes import AttributeKind
from deburr.ir.onnx_attributes import is_carried, part


def skeleton(model: Any) -> Any:
    """A small ModelProto of what graphsurgeon carries of `model`."""
    import onnx

    bones = onnx.ModelProto(
        ir_version=model.ir_version, producer_name=model.producer_name, producer_version=model.producer_version
    )
    bones.opset_import.extend(model.opset_import)
    _graph(bones.graph, model.graph)
    for function in model.functions:
        _function(bones.functions.add(), function)
    return bones


def _graph(bones: Any, graph: Any) -> None:
    bones.name, bones.doc_string = graph.name, graph.doc_string
    for info in graph.input:
        bones.input.add(name=info.name)
    for info in graph.output:
        bones.output.add(name=info.name)
    for node in graph.node:
        _node(bones.node.add(), node)


def _function(bones: Any, function: Any) -> None:
    bones.name, bones.domain, bones.doc_string = function.name, function.domain, function.doc_string
    for field in ("input", "output", "attribute", "opset_import"):
        getattr(bones, field).extend(getattr(function, field))
    for node in function.node:
        _node(bones.node.add(), node)
    for attribute in function.attribute_proto:
        _attribute(bones.attribute_proto, attribute)


def _node(bones: Any, node: Any) -> None:
    bones.op_type, bones.name, bones.domain = node.op_type, node.name, node.domain
    bones.input.extend(node.input)
    bones.output.extend(node.output)
    for attribute in node.attribute:
        _attribute(bones.attribute, attribute)


def _attribute(bones: Any, attribute: Any) -> None:
    if is_carried(attribute):
        bones.append(attribute)
    elif attribute.ref_attr_name:
        return
    elif attribute.type == AttributeKind.GRAPH:
        _graph(bones.add(name=attribute.name, type=attribute.type).g, attribute.g)
    elif attribute.type == AttributeKind.GRAPHS:
        for index, graph in enumerate(attribute.graphs):
            added = bones.add(name=part(attribute.name, index), type=int(AttributeKind.GRAPH))
            _graph(added.g, graph)
