"""From an ONNX file to the IR: checked first, then through onnx-graphsurgeon, with what it loses taken from the proto."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deburr.ir import onnx_tensors
from deburr.ir.attributes import Attribute
from deburr.ir.errors import DeburrError
from deburr.ir.graph import Graph
from deburr.ir.model import Function, Model
from deburr.ir.node import Node
from deburr.ir.onnx_attributes import attribute
from deburr.ir.onnx_check import check, unimported
from deburr.ir.onnx_load import load
from deburr.ir.onnx_skeleton import skeleton
from deburr.ir.onnx_types import declare, properties
from deburr.ir.types import TensorType

_KNOWN_NODE_FIELDS = ("input", "output", "name", "op_type", "domain", "overload", "attribute", "doc_string", "metadata_props")


def read(source: str | Path | bytes | Any) -> Model:
    """Read a model from a path, its bytes or an `onnx.ModelProto`. Weights stay where they are until they are asked for.

    :raises DeburrError: E101 unreadable, E102 not ONNX or truncated, E103 and E104 invalid, E105 too new, E106 external data.
    """
    from deburr.ir.inference import infer
    from deburr.ir.verify import verify

    loaded = load(source)
    try:
        check(loaded)
        model = convert(loaded.proto, loaded.folder)
    except UnicodeDecodeError as error:  # protobuf decodes a string when it is first looked at
        why = f"a name or text is not UTF-8: {error.reason}"
        raise DeburrError("E102", "not an ONNX model, or damaged", where=loaded.name, why=why, hint="fetch it again") from error
    infer(model)
    verify(model, "imported")
    return model


def convert(proto: Any, folder: Path | None = None) -> Model:
    """The IR of a valid ModelProto, as the file states it: nothing is checked or inferred.

    :raises DeburrError: E106 for external data.
    """
    import onnx_graphsurgeon
    from onnx_graphsurgeon.logger import G_LOGGER

    with G_LOGGER.suppress():
        carried = onnx_graphsurgeon.import_onnx(skeleton(proto))
    model = Model(Graph(proto.graph.name), {**_imports(proto), **dict.fromkeys(sorted(unimported(proto)), 1)})
    model.ir_version, model.version, model.domain = proto.ir_version, proto.model_version, proto.domain
    model.producer, model.doc, model.folder = (proto.producer_name, proto.producer_version), proto.doc_string, folder
    model.metadata = properties(proto.metadata_props)
    model.extra = _extra(proto, ("training_info", "configuration"))
    reader = _Reader(folder, proto.ir_version)
    reader.fill(model.graph, carried, proto.graph)
    for carried_function, function in zip(carried.functions, proto.functions, strict=True):
        made = reader.function(carried_function, function)
        model.functions[made.domain, made.name, made.overload] = made
    return model


@dataclass(frozen=True)
class _Reader:
    folder: Path | None
    ir_version: int

    def fill(self, graph: Graph, carried: Any, proto: Any) -> None:
        """Fill a graph whose parent is set."""
        graph.doc, graph.metadata = proto.doc_string, properties(proto.metadata_props)
        self._initializers(graph, proto)
        self._inputs(graph, proto)
        self.nodes(graph, carried.nodes, proto.node)
        graph.set_outputs([graph._values[info.name] for info in proto.output])
        self.declare(graph, proto.value_info)
        self.declare(graph, proto.output)
        for annotation in proto.quantization_annotation:
            keys = properties(annotation.quant_parameter_tensor_names)
            graph.annotations[graph.value(annotation.tensor_name)] = {key: graph.value(name) for key, name in keys.items()}

    def _initializers(self, graph: Graph, proto: Any) -> None:
        constants = {tensor.name: onnx_tensors.constant(tensor, self.folder) for tensor in proto.initializer}
        constants.update({sparse.values.name: onnx_tensors.sparse_constant(sparse) for sparse in proto.sparse_initializer})
        for name, constant in constants.items():
            value = graph.add_value(name, TensorType(constant.dtype, constant.shape))
            value.constant = constant

    def _inputs(self, graph: Graph, proto: Any) -> None:
        inputs = []
        for info in proto.input:
            known = graph._values.get(info.name)
            # Before IR version 4 every initializer had to be listed among the inputs: those are plain constants.
            if known is None or self.ir_version >= 4:
                inputs.append(known or graph.add_value(info.name))
        graph.set_inputs(inputs)
        self.declare(graph, proto.input)

    def declare(self, graph: Graph, infos: Iterable[Any]) -> None:
        for info in infos:
            if info.name in graph._values:
                declare(graph._values[info.name], info)

    def nodes(self, graph: Graph, carried: Iterable[Any], protos: Iterable[Any]) -> None:
        for node, proto in zip(carried, protos, strict=True):
            self._node(graph, node, proto)

    def _node(self, graph: Graph, carried: Any, proto: Any) -> None:
        inputs = [None if tensor.is_empty() else graph.value(tensor.name) for tensor in carried.inputs]
        outputs = [None if tensor.is_empty() else graph.add_value(tensor.name) for tensor in carried.outputs]
        domain = "" if carried.domain in (None, "ai.onnx") else carried.domain
        node = graph.add_node(carried.op, inputs, outputs, domain=domain, name=carried.name)
        node.overload, node.doc = proto.overload, proto.doc_string
        node.metadata, node.extra = properties(proto.metadata_props), _without(proto, _KNOWN_NODE_FIELDS)
        for entry in proto.attribute:
            node.set_attribute(entry.name, self.attribute(entry, carried.attrs, node))

    def attribute(self, proto: Any, carried: dict[str, Any], parent: Node | None) -> Attribute:
        def subgraph(carried_graph: Any, graph_proto: Any) -> Graph:
            graph = Graph(graph_proto.name, parent)
            self.fill(graph, carried_graph, graph_proto)
            return graph

        return attribute(proto, carried, self.folder, subgraph)

    def function(self, carried: Any, proto: Any) -> Function:
        graph = Graph(proto.name)
        graph.set_inputs([graph.add_value(name) for name in proto.input])
        self.nodes(graph, carried.nodes, proto.node)
        graph.set_outputs([graph.value(name) for name in proto.output])
        self.declare(graph, proto.value_info)
        attributes: dict[str, Attribute | None] = dict.fromkeys(proto.attribute)
        attributes.update({entry.name: self.attribute(entry, carried.attrs, None) for entry in proto.attribute_proto})
        metadata = properties(proto.metadata_props)
        return Function(
            proto.name, proto.domain, graph, proto.overload, attributes, _imports(proto), metadata, proto.doc_string
        )


def _imports(proto: Any) -> dict[str, int]:
    """Opset imports of a model or function; the default domain has two spellings."""
    return {"" if entry.domain == "ai.onnx" else entry.domain: entry.version for entry in proto.opset_import}


def _extra(proto: Any, fields: tuple[str, ...]) -> bytes:
    kept = type(proto)()
    for field in fields:
        getattr(kept, field).extend(getattr(proto, field))
    return bytes(kept.SerializeToString(deterministic=True))


def _without(proto: Any, fields: tuple[str, ...]) -> bytes:
    if all(field.name in fields for field, _ in proto.ListFields()):
        return b""
    kept = type(proto)()
    kept.CopyFrom(proto)
    for field in fields:
        kept.ClearField(field)
    return bytes(kept.SerializeToString(deterministic=True))
