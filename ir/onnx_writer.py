"""From the IR to an ONNX file: out through onnx-graphsurgeon, with what it cannot carry put in beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from deburr.ir import onnx_external, onnx_tensors
from deburr.ir.attributes import Attribute, AttributeKind
from deburr.ir.constants import Constant
from deburr.ir.errors import DeburrError
from deburr.ir.graph import Graph
from deburr.ir.model import Function, Model
from deburr.ir.node import Node
from deburr.ir.onnx_attributes import attribute_proto, carried_value, part
from deburr.ir.onnx_types import fill_value_info, set_properties
from deburr.ir.value import Value

TensorWriter = Callable[[Constant, str], Any]


def to_proto(model: Model, tensor: TensorWriter = onnx_tensors.tensor_proto) -> Any:
    """The model as an `onnx.ModelProto`; external data is taken inside. The model itself stays as it is.

    :param tensor: makes the TensorProto of a constant under a name.
    """
    import onnx
    import onnx_graphsurgeon
    from onnx_graphsurgeon.logger import G_LOGGER

    graph = _Carrier(model.opset_imports).graph(model.graph)
    graph.ir_version, (graph.producer_name, graph.producer_version) = model.ir_version, model.producer
    graph.functions = [_Carrier(function.opset_imports).function(function) for function in model.functions.values()]
    imports = [onnx.helper.make_opsetid(domain, version) for domain, version in model.opset_imports.items()]
    with G_LOGGER.suppress():
        proto = onnx_graphsurgeon.export_onnx(graph, do_type_check=False, opset_imports=imports)
    _model(proto, model, tensor)
    return proto


class _Carrier:
    """Makes graphsurgeon's graphs: structure and plain attributes."""

    def __init__(self, opset_imports: Mapping[str, int]) -> None:
        import onnx_graphsurgeon

        self.gs, self.opset_imports = onnx_graphsurgeon, opset_imports
        self.tensors: dict[Value, Any] = {}

    def tensor(self, value: Value | None) -> Any:
        if value is None:
            return self.gs.Variable.empty()
        if value not in self.tensors:
            self.tensors[value] = self.gs.Variable(value.name)
        return self.tensors[value]

    def graph(self, graph: Graph) -> Any:
        inputs, outputs = ([self.tensor(value) for value in values] for values in (graph.inputs, graph.outputs))
        return self.gs.Graph(self.nodes(graph), inputs, outputs, name=graph.name, doc_string=graph.doc)

    def function(self, function: Function) -> Any:
        import onnx

        inputs, outputs = ([self.tensor(v) for v in values] for values in (function.graph.inputs, function.graph.outputs))
        return self.gs.Function(
            function.name, function.domain, self.nodes(function.graph), inputs, outputs, doc_string=function.doc,
            import_domains=[onnx.helper.make_opsetid(domain, version) for domain, version in function.opset_imports.items()],
            attrs={**dict.fromkeys(function.attributes), **self.attributes(_defaults(function))},
        )  # fmt: skip

    def nodes(self, graph: Graph) -> list[Any]:
        return [self.node(node) for node in graph.nodes]

    def node(self, node: Node) -> Any:
        # Trailing inputs that are left out are dropped in the IR; some schemas want them named as empty.
        missing = max(0, _minimum_inputs(node.domain, node.op, self.opset_imports.get(node.domain, 0)) - len(node.inputs))
        inputs = [self.tensor(value) for value in (*node.inputs, *[None] * missing)]
        outputs = [self.tensor(value) for value in node.outputs]
        return self.gs.Node(node.op, node.name, self.attributes(node.attributes), inputs, outputs, node.domain or None)

    def attributes(self, attributes: Mapping[str, Attribute]) -> dict[str, Any]:
        carried: dict[str, Any] = {}
        for name, attribute in attributes.items():
            if attribute.kind is AttributeKind.GRAPHS:
                carried.update({part(name, index): self.graph(inner) for index, inner in enumerate(attribute.graphs)})
            elif attribute.graphs:
                carried[name] = self.graph(attribute.value)
            elif carried_value(attribute) is not None:
                carried[name] = carried_value(attribute)
        return carried


def _defaults(function: Function) -> dict[str, Attribute]:
    return {name: default for name, default in function.attributes.items() if default is not None}


@cache
def _minimum_inputs(domain: str, op: str, opset: int) -> int:
    import onnx

    try:
        return int(onnx.defs.get_schema(op, opset, domain).min_input)
    except onnx.defs.SchemaError:
        return 0


def _model(proto: Any, model: Model, tensor: TensorWriter) -> None:
    proto.domain, proto.model_version, proto.doc_string = model.domain, model.version, model.doc
    set_properties(proto.metadata_props, model.metadata)
    if model.extra:
        proto.MergeFromString(model.extra)
    # Before IR version 4 every initializer had to be listed among the inputs.
    _graph(proto.graph, model.graph, tensor, list_constants=model.ir_version < 4)
    for function_proto, function in zip(proto.functions, model.functions.values(), strict=True):
        _function(function_proto, function, tensor, model.ir_version)


def _graph(proto: Any, graph: Graph, tensor: TensorWriter, list_constants: bool = False) -> None:
    import onnx

    set_properties(proto.metadata_props, graph.metadata)
    for field in ("input", "output", "value_info", "initializer"):
        proto.ClearField(field)
    listed = [value for value in graph.constants if list_constants]
    for value in (*graph.inputs, *listed):
        fill_value_info(proto.input.add(), value)
    for value in graph.outputs:
        fill_value_info(proto.output.add(), value)
    for value in graph.values:
        source = value.constant.source if value.constant is not None else None
        # Dense for shape inference, which would take the value for one of a sparse type.
        if isinstance(source, onnx.SparseTensorProto) and tensor is not onnx_tensors.stub:
            sparse = proto.sparse_initializer.add()
            sparse.CopyFrom(source)
            sparse.values.name = value.name
        elif value.constant is not None:
            proto.initializer.append(tensor(value.constant, value.name))
    _value_info(proto, graph)
    for value, keys in graph.annotations.items():
        _annotation(proto, graph, value, keys)
    for node_proto, node in zip(proto.node, graph.nodes, strict=True):
        _node(node_proto, node, tensor)


def _value_info(proto: Any, graph: Graph) -> None:
    ends = {*graph.inputs, *graph.outputs}
    for value in graph.values:
        says_more = value.doc or value.metadata or value.declared
        if value not in ends and (says_more or (value.type is not None and value.constant is None)):
            fill_value_info(proto.value_info.add(), value)


def _annotation(proto: Any, graph: Graph, value: Value, keys: dict[str, Value]) -> None:
    if all(graph._values.get(named.name) is named for named in (value, *keys.values())):
        annotation = proto.quantization_annotation.add(tensor_name=value.name)
        set_properties(annotation.quant_parameter_tensor_names, {key: named.name for key, named in keys.items()})


def _node(proto: Any, node: Node, tensor: TensorWriter) -> None:
    proto.overload, proto.doc_string = node.overload, node.doc
    set_properties(proto.metadata_props, node.metadata)
    if node.extra:
        proto.MergeFromString(node.extra)
    _attributes(proto.attribute, node.attributes, tensor)


def _attributes(field: Any, attributes: Mapping[str, Attribute], tensor: TensorWriter) -> None:
    """Bring a repeated AttributeProto, as graphsurgeon wrote it, to what the IR says, in its order."""
    carried = {}
    for entry in field:
        carried[entry.name] = type(entry)()
        carried[entry.name].CopyFrom(entry)
    del field[:]
    for name, attribute in attributes.items():
        _attribute(field.add(), name, attribute, carried, tensor)


def _attribute(proto: Any, name: str, attribute: Attribute, carried: dict[str, Any], tensor: TensorWriter) -> None:
    if name in carried:
        proto.CopyFrom(carried[name])
    else:
        proto.MergeFrom(attribute_proto(name, attribute, tensor))
    if attribute.kind is AttributeKind.GRAPHS:
        proto.graphs.extend(carried[part(name, index)].g for index in range(len(attribute.graphs)))
    proto.doc_string = attribute.doc
    for inner, graph in zip(proto.graphs or [proto.g], attribute.graphs, strict=False):
        _graph(inner, graph, tensor)


def _function(proto: Any, function: Function, tensor: TensorWriter, ir_version: int) -> None:
    graph = function.graph
    proto.overload = function.overload
    set_properties(proto.metadata_props, function.metadata)
    del proto.attribute[:]
    proto.attribute.extend(name for name, default in function.attributes.items() if default is None)
    _attributes(proto.attribute_proto, _defaults(function), tensor)
    for node_proto, node in zip(proto.node, graph.nodes, strict=True):
        _node(node_proto, node, tensor)
    for value in reversed(graph.constants):
        proto.node.insert(0, _constant_node(value, tensor))
    if ir_version >= 10:
        for value in graph.values:
            if value.type is not None and value.producer is not None:
                fill_value_info(proto.value_info.add(), value)


def _constant_node(value: Value, tensor: TensorWriter) -> Any:
    """What stands for an initializer in a function, which cannot have any."""
    import onnx

    assert value.constant is not None
    return onnx.helper.make_node("Constant", [], [value.name], value=tensor(value.constant, value.name))


def write(model: Model, path: str | Path, *, external: bool | None = None) -> None:
    """Write an .onnx file, the same bytes every time. The model stays as it is, also where it came from the same path.

    :param external: put the weights into `<name>.data` beside the model; None: where one file cannot hold them (2 GB).
    :raises DeburrError: E109 where a file cannot be written, or one file cannot hold the model.
    """
    from deburr.ir.files import write_atomically

    target = Path(path)
    outside = onnx_external.is_too_big(model) if external is None else external
    layout = onnx_external.Layout.of(model, f"{target.name}.data") if outside else None
    data = _serialize(to_proto(model, layout.tensor if layout else onnx_tensors.tensor_proto), target)

    def fill(fresh: Path) -> None:
        fresh.write_bytes(data)
        if layout and layout.places:
            layout.write(fresh.with_name(layout.location))

    write_atomically(target, fill, beside=[layout.location] if layout and layout.places else [])


def _serialize(proto: Any, target: Path) -> bytes:
    from google.protobuf.message import EncodeError  # type: ignore[import-untyped]

    try:
        return bytes(proto.SerializeToString(deterministic=True))
    except (EncodeError, ValueError) as error:
        hint = "let the weights go to a file beside it: external=True"
        raise DeburrError(
            "E109", "the model does not fit into one file", where=str(target), why=str(error), hint=hint
        ) from error
