"""A model from its text form: recursive descent, one function per construct. The printer's docstrings show the grammar."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from deburr.ir.attributes import Attribute, AttributeKind, AttributeReference
from deburr.ir.constants import Constant
from deburr.ir.graph import Graph
from deburr.ir.model import Function, Model
from deburr.ir.text.lexer import Lexer
from deburr.ir.text.literals import parse_qparams, parse_tensor, parse_type
from deburr.ir.text.names import float32_of
from deburr.ir.types import TensorType
from deburr.ir.value import Value

Item = TypeVar("Item")
MAX_DEPTH = 100  # of subgraphs: as deep as a protobuf message may nest


def parse_model(text: str, weights: Mapping[str, Constant] | None = None) -> Model:
    """The model that `print_model` printed.

    :param weights: the constants that the text names by hash, as `weights_of` or `load_weights` gives them.
    :raises DeburrError: E107 with line, column and token.
    """
    return _Parser(text, weights or {}).model()


class _Scope:
    """The values that a graph sees: its own and those of the graphs around it."""

    def __init__(self, graph: Graph, outer: _Scope | None) -> None:
        self.graph, self.outer = graph, outer
        self.depth: int = 0 if outer is None else outer.depth + 1
        self.values: dict[str, Value] = {}

    def find(self, name: str) -> Value | None:
        scope: _Scope | None = self
        while scope is not None:
            if name in scope.values:
                return scope.values[name]
            scope = scope.outer
        return None


class _Parser:
    def __init__(self, text: str, weights: Mapping[str, Constant]) -> None:
        self.lexer, self.weights = Lexer(text), weights

    # the model

    def model(self) -> Model:
        lexer, model = self.lexer, Model(Graph(), {})
        while lexer.token.text not in ("graph", "end") and self._header(model):
            pass
        lexer.expect("graph")
        model.graph = self._graph(None)
        while lexer.accept("function"):
            start = lexer.token
            function = self._function()
            key = (function.domain, function.name, function.overload)
            if key in model.functions:
                lexer.fail("a function with this name is already there", start)
            model.functions[key] = function
        if lexer.token.kind != "end":
            lexer.fail("expected 'function' or the end")
        return model

    def _header(self, model: Model) -> bool:
        lexer = self.lexer
        if lexer.accept("ir_version"):
            model.ir_version = lexer.integer()
        elif lexer.accept("producer"):
            model.producer = (lexer.string(), lexer.string())
        elif lexer.accept("domain"):
            model.domain = lexer.string()
        elif lexer.accept("version"):
            model.version = lexer.integer()
        elif lexer.accept("opset"):
            self._opset(model.opset_imports)
        elif lexer.token.text in ("doc", "metadata", "extra"):
            model.doc, model.metadata, model.extra = self._notes("extra")
        else:
            return False
        return True

    def _opset(self, imports: dict[str, int]) -> None:
        domain = self.lexer.string()
        imports[domain] = self.lexer.integer("a version")

    def _function(self) -> Function:
        lexer = self.lexer
        name, domain, overload = self._operator_name()
        function = Function(name, domain, Graph(), overload)
        function.doc, function.metadata, _ = self._notes()
        lexer.expect("{")
        while lexer.accept("opset"):
            self._opset(function.opset_imports)
        while lexer.accept("attribute"):
            key = lexer.word("the name of an attribute")
            function.attributes[key] = self._attribute(None) if lexer.accept("=") else None
        lexer.expect("graph")
        function.graph = self._graph(None)
        lexer.expect("}")
        return function

    # graphs

    def _graph(self, outer: _Scope | None) -> Graph:
        """Behind the word "graph": its name, and the statements in braces up to `return`."""
        lexer = self.lexer
        scope = _Scope(Graph(lexer.word("the name of the graph")), outer)
        if scope.depth > MAX_DEPTH:
            lexer.fail(f"subgraphs are nested deeper than {MAX_DEPTH}")
        graph = scope.graph
        graph.doc, graph.metadata, _ = self._notes()
        lexer.expect("{")
        inputs: list[Value] = []
        while self._value_statement(scope, inputs):
            pass
        graph.set_inputs(inputs)
        while lexer.token.kind == "value" or lexer.token.text in ("_", "("):
            self._node(scope)
        while lexer.accept("annotation"):
            noted = self._read(scope)
            graph.annotations[noted] = self._pairs(lambda: self._read(scope))
        lexer.expect("return")
        graph.set_outputs([] if lexer.token.text == "}" else self._separated(lambda: self._read(scope)))
        lexer.expect("}")
        return graph

    def _value_statement(self, scope: _Scope, inputs: list[Value]) -> bool:
        lexer = self.lexer
        if lexer.accept("input"):
            inputs.append(value := self._declare(scope))
            if lexer.accept("="):
                value.constant = parse_tensor(lexer, self.weights)
        elif lexer.accept("const"):
            value, is_typed = self._declaration(scope)
            lexer.expect("=")
            value.constant = constant = parse_tensor(lexer, self.weights)
            if not is_typed:
                value.type = TensorType(constant.dtype, constant.shape)
        elif lexer.accept("value"):
            self._declare(scope)
        else:
            return False
        return True

    def _declare(self, scope: _Scope) -> Value:
        return self._declaration(scope)[0]

    def _declaration(self, scope: _Scope) -> tuple[Value, bool]:
        """`%name: type quant<…> notes`: the value, and whether a type was given."""
        lexer = self.lexer
        start, name = lexer.token, lexer.value()
        if name in scope.values or not name:
            lexer.fail("the name is empty, or taken by another value", start)
        value = scope.values[name] = scope.graph.add_value(name)
        is_typed = lexer.accept(":")
        if is_typed:
            value.type = parse_type(lexer)
        if lexer.accept("quant"):
            value.qparams = parse_qparams(lexer, self.weights)
        value.doc, value.metadata, value.declared = self._notes("declared")
        return value, is_typed

    def _read(self, scope: _Scope) -> Value:
        start, name = self.lexer.token, self.lexer.value()
        value = scope.find(name)
        if value is None:
            self.lexer.fail("no value with this name is defined before it is read", start)
        return value

    # nodes

    def _node(self, scope: _Scope) -> None:
        lexer = self.lexer
        outputs: list[Value | None] = []
        if lexer.accept("("):
            lexer.expect(")")
        else:
            outputs = self._separated(lambda: None if lexer.accept("_") else self._declare(scope))
        lexer.expect("=")
        op, domain, overload = self._operator_name()
        lexer.expect("(")
        inputs: list[Value | None] = []
        if lexer.token.text != ")":
            # The node's own outputs are in scope already: a cycle is for the verifier to find.
            inputs = self._separated(lambda: None if lexer.accept("_") else self._read(scope))
        lexer.expect(")")
        attributes = self._attributes(scope)
        name = lexer.string() if lexer.token.kind == "string" else ""
        node = scope.graph.add_node(op, inputs, outputs, attributes, domain=domain, name=name)
        node.overload = overload
        node.doc, node.metadata, node.extra = self._notes("extra")

    def _operator_name(self) -> tuple[str, str, str]:
        """`Op`, `domain::Op`, `domain::Op<overload>`, as (name, domain, overload)."""
        lexer = self.lexer
        name, domain, overload = lexer.word("an operator"), "", ""
        if lexer.accept("::"):
            name, domain = lexer.word("an operator"), name
        if lexer.accept("<"):
            overload = lexer.word("an overload")
            lexer.expect(">")
        return name, domain, overload

    def _attributes(self, scope: _Scope) -> dict[str, Attribute]:
        lexer, attributes = self.lexer, dict[str, Attribute]()
        if not lexer.accept("{"):
            return attributes
        while not lexer.accept("}"):
            if attributes:
                lexer.expect(",")
            start, key = lexer.token, lexer.word("the name of an attribute")
            if key in attributes:
                lexer.fail("the attribute is given twice", start)
            lexer.expect("=")
            attributes[key] = self._attribute(scope)
        return attributes

    def _attribute(self, scope: _Scope | None) -> Attribute:
        kind, value = self._attribute_value(scope)
        doc, _, _ = self._notes()
        return Attribute(kind, value, doc)

    def _attribute_value(self, scope: _Scope | None) -> tuple[AttributeKind, Any]:
        """A scalar, a list, or a kind in words followed by a reference, by `[]` or by bytes."""
        lexer, kind = self.lexer, _KINDS.get(self.lexer.token.text)
        if lexer.token.text == "[":
            return self._attribute_list(scope)
        if kind is not None and lexer.peek.text == "@":
            lexer.next(), lexer.next()
            return kind, AttributeReference(lexer.word("the name of an attribute"))
        if kind in _SINGULAR.values() and kind is not None:
            lexer.next()
            lexer.expect("[")
            lexer.expect("]")
            return kind, ()
        if kind in _SERIALIZED and kind is not None:
            lexer.next()
            return kind, lexer.raw_bytes()
        return self._scalar(scope)

    def _attribute_list(self, scope: _Scope | None) -> tuple[AttributeKind, Any]:
        start = self.lexer.next()
        items = self._separated(lambda: self._scalar(scope))
        self.lexer.expect("]")
        kinds = {kind for kind, _ in items}
        if len(kinds) > 1:
            self.lexer.fail("the items of a list are of one kind", start)
        return _SINGULAR[kinds.pop()], tuple(value for _, value in items)

    def _scalar(self, scope: _Scope | None) -> tuple[AttributeKind, Any]:
        lexer, token = self.lexer, self.lexer.token
        if token.kind == "int":
            return AttributeKind.INT, lexer.integer()
        if token.kind == "float":
            return AttributeKind.FLOAT, float32_of(lexer.next().text)
        if token.kind in ("string", "hex"):
            return AttributeKind.STRING, lexer.string_or_bytes()
        if lexer.accept("graph"):
            return AttributeKind.GRAPH, self._graph(scope)
        if token.kind != "word":
            lexer.fail("expected the value of an attribute")
        return AttributeKind.TENSOR, parse_tensor(lexer, self.weights)

    # small parts

    def _notes(self, proto: str = "") -> tuple[str, dict[str, str], bytes]:
        """What stands behind a thing: `doc "…"`, `metadata {…}`, and the bytes named `proto`."""
        lexer = self.lexer
        doc = lexer.string() if lexer.accept("doc") else ""
        metadata = self._pairs(lexer.string) if lexer.accept("metadata") else {}
        extra = lexer.raw_bytes() if proto and lexer.accept(proto) else b""
        return doc, metadata, extra

    def _pairs(self, item: Callable[[], Item]) -> dict[str, Item]:
        """`{"key": item, …}`."""
        lexer, pairs = self.lexer, dict[str, Item]()
        lexer.expect("{")
        while not lexer.accept("}"):
            if pairs:
                lexer.expect(",")
            key = lexer.string()
            lexer.expect(":")
            pairs[key] = item()
        return pairs

    def _separated(self, item: Callable[[], Item]) -> list[Item]:
        items = [item()]
        while self.lexer.accept(","):
            items.append(item())
        return items


_KINDS = {kind.name.lower(): kind for kind in AttributeKind}
_SINGULAR = {
    AttributeKind.INT: AttributeKind.INTS,
    AttributeKind.FLOAT: AttributeKind.FLOATS,
    AttributeKind.STRING: AttributeKind.STRINGS,
    AttributeKind.TENSOR: AttributeKind.TENSORS,
    AttributeKind.GRAPH: AttributeKind.GRAPHS,
}
_SERIALIZED = (
    AttributeKind.SPARSE_TENSOR,
    AttributeKind.SPARSE_TENSORS,
    AttributeKind.TYPE_PROTO,
    AttributeKind.TYPE_PROTOS,
)
