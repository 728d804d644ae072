"""Operators without a template of ours: TVM's own ONNX converters, one operator at a time."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

from deburr.ir.errors import DeburrError
from deburr.ir.model import Model
from deburr.ir.node import Node

# A converter may hand these over as ShapeExpr, and only these take one.
_TAKE_SHAPES = frozenset(
    {
        "Reshape",
        "Resize",
        "ConstantOfShape",
        "Gather",
        "Slice",
        "Shape",
        "Expand",
        "Concat",
        "Equal",
        "Where",
        "Cast",
        "CastLike",
        "Squeeze",
    }
)


class Converters:
    """TVM's converters, called with nodes of our IR."""

    def __init__(self, model: Model, builder: Any) -> None:
        from deburr.ir.onnx_writer import to_proto

        self._builder, self._opset = builder, model.opset
        self._protos = dict(zip(model.graph.nodes, to_proto(model).graph.node, strict=True)) if _any_foreign(model) else {}

    def convert(self, node: Node, operands: Sequence[Any]) -> list[Any]:
        """The Relax expressions that stand for the outputs of `node`.

        :raises DeburrError: E402 where TVM has no converter, its converter refuses, or the result's size depends on the data.
        """
        from tvm.relax.frontend.onnx import onnx_frontend

        if (
            node.domain not in ("", "ai.onnx", "com.microsoft")
            or node.op not in onnx_frontend._get_convert_map()
            or node.subgraphs
        ):
            raise _refusal(node, "neither a template of deburr's nor a converter of TVM's takes it")
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # converters print
                results = self._call(onnx_frontend, node, operands)
        except Exception as error:  # converters raise whatever they like
            raise _refusal(node, f"TVM's converter refused: {_first_line(error)}") from error
        for value, result in zip(node.outputs, results, strict=False):
            if value is not None and not _is_static(result):
                raise _refusal(node, f"the size of {value.name!r} depends on the data")
        return results

    def _call(self, frontend: Any, node: Node, operands: Sequence[Any]) -> list[Any]:
        from tvm import relax

        inputs = frontend.onnx_input()
        inputs.extend(operands)
        if node.op not in _TAKE_SHAPES:
            inputs[:] = [self._tensor(operand) for operand in inputs]
        importer = frontend.ONNXGraphImporter({}, "float32")
        attributes = importer._parse_attr(self._protos[node].attribute)
        attributes["tvm_custom"] = {"name": node.name, "num_outputs": len(node.outputs)}
        convert = frontend._get_convert_map()[node.op].get_converter(self._opset)
        made = self._builder.normalize(convert(self._builder, inputs, attributes, [{}, {}]))
        if isinstance(made, relax.Tuple):
            return [self._emitted(field) for field in made.fields]
        if isinstance(made.ty, relax.TupleType):
            whole = self._builder.emit(made)
            return [self._builder.emit(relax.TupleGetItem(whole, index)) for index in range(len(made.ty.fields))]
        return [self._emitted(made)]

    def _tensor(self, operand: Any) -> Any:
        """A shape as the tensor of int64 that ONNX means."""
        import numpy as np
        from tvm import relax

        if isinstance(operand, relax.ShapeExpr):
            return relax.const(np.array([int(size) for size in operand.values], np.int64))
        return operand

    def _emitted(self, expression: Any) -> Any:
        from tvm import ir, relax

        if isinstance(expression, relax.Var | ir.GenericConst | relax.ShapeExpr):
            return expression
        return self._builder.emit(expression)


def _any_foreign(model: Model) -> bool:
    return any(node.domain != "deburr" for node in model.graph.nodes)


def _is_static(expression: Any) -> bool:
    from tvm import relax, tirx

    if isinstance(expression, relax.ShapeExpr):
        return True
    shape = getattr(expression.ty, "shape", None)
    sizes = getattr(shape, "values", None)
    return sizes is not None and all(isinstance(size, tirx.IntImm | int) for size in sizes)


def _refusal(node: Node, why: str) -> DeburrError:
    label = f"{node.domain}.{node.op}" if node.domain else node.op
    hint = "take it out of the model, or fold it away with `deburr optimize -p clean`"
    return DeburrError("E402", f"the operator {label} cannot be compiled", where=repr(node), why=why, hint=hint)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:200]
