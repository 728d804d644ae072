"""Compute now what is the same in every run.

ONNX Runtime computes it, on a model of the one node: it is the reference for every numeric check, so a folded value has the
bits that the node would have given, and it covers more types and is faster than the ONNX reference evaluator.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from deburr.ir.constants import Constant
from deburr.ir.errors import DeburrError
from deburr.ir.evaluate import Evaluator
from deburr.ir.graph import Graph
from deburr.ir.inference import infer
from deburr.ir.model import Model
from deburr.ir.node import Node
from deburr.ir.ops import imports_of, is_pure, owning_function
from deburr.ir.types import DType, Shape
from deburr.ir.value import Value
from deburr.passes.clean.common import has_references, is_standard, remove_if_unused, replace_by_constant
from deburr.passes.core import Context, Pass

_SMALL = 4096  # bytes of an input that shape inference may look into
_WRITTEN: dict[str, type] = {  # the attributes of Constant that hold plain numbers and strings
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
    "value_string": object,
    "value_strings": object,
}


@dataclass(frozen=True, slots=True)
class FoldConstants(Pass):
    """Compute what depends on no input, sizes that are known included; Constant nodes become initializers.

    :param limit: bytes that a result may take if it is larger than what it is computed from.
    """

    name: ClassVar[str] = "fold-constants"

    limit: int = 1 << 20

    def __post_init__(self) -> None:
        if self.limit < 0:
            raise ValueError("limit must not be negative")

    def run(self, graph: Graph, context: Context) -> None:
        for node in graph.nodes:
            wanted = [value for value in node.outputs if value is not None and value.uses]
            if not wanted or has_references(node):
                continue
            try:
                results = self._results(node, wanted, context.model)
            except _DeclinedError as declined:
                context.remark(node, declined.reason)
                continue
            for value in wanted:
                if value in results:
                    replace_by_constant(value, results[value])
            remove_if_unused(node)

    def _results(self, node: Node, wanted: list[Value], model: Model) -> dict[Value, Constant]:
        """What the wanted outputs are, for a node that can be folded.

        :raises _DeclinedError: if all its inputs are constant and it is left alone all the same.
        """
        known = _written_out(node) if is_standard(node, "Constant") else _known_size(node)
        if known is not None:
            return {node.output(): known}
        inputs = [value for value in node.inputs if value is not None]
        if not inputs or not all(value.is_constant for value in inputs) or is_standard(node, "DequantizeLinear"):
            return {}  # a quantized weight is meant to stay one
        _check(node, inputs, model)
        return self._evaluate(node, wanted, model)

    def _evaluate(self, node: Node, wanted: list[Value], model: Model) -> dict[Value, Constant]:
        single, inputs = _model_of(node, model)
        outputs = {value: single.graph.value(value.name) for value in wanted}
        most = max(self.limit, sum(value.constant.nbytes for value in node.inputs if value is not None and value.constant))
        for value in outputs.values():
            if value.static_shape is not None and value.dtype is not None:
                _check_size(math.prod(value.static_shape) * value.dtype.bits // 8, most)
        try:
            results = Evaluator(single, threads=1).run(inputs)
        except DeburrError as error:
            raise _DeclinedError(f"ONNX Runtime does not compute it: {error.why}") from error
        return {value: _constant(results[value.name], outputs[value], most) for value in wanted}


class _DeclinedError(Exception):
    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def _written_out(node: Node) -> Constant | None:
    """What a Constant node holds, or None for a sparse tensor."""
    for name, dtype in _WRITTEN.items():
        if name in node.attributes:
            return Constant.of(np.asarray(node.get(name), dtype=dtype), DType.STRING if dtype is object else None)
    constant = node.get("value")
    return constant if isinstance(constant, Constant) else None


def _known_size(node: Node) -> Constant | None:
    """Shape, Size, and a Gather or a Slice from a Shape, where the dims that they give are known numbers."""
    if is_standard(node, "Size"):
        shape = node.input(0).static_shape
        return None if shape is None else Constant.of(np.asarray(math.prod(shape), dtype=np.int64))
    if is_standard(node, "Shape"):
        return _dims(_shape_given(node), slice(None))
    source = node.input(0).producer if is_standard(node, "Gather", "Slice") else None
    if source is None or not is_standard(source, "Shape") or node.get("axis", 0) != 0:
        return None
    if node.op == "Slice":
        return _dims(_shape_given(source), _range_of(node))
    indices = node.input(1).array
    return None if indices is None else _dims(_shape_given(source), indices)


def _range_of(node: Node) -> slice | None:
    """The elements that a Slice with constant bounds takes of a tensor of rank 1."""
    arrays = [value.array for value in node.inputs[1:3] if value is not None]
    step = node.optional_input(4)
    arrays.append(np.ones(1, np.int64) if step is None else step.array)
    if len(arrays) != 3 or any(array is None or array.size != 1 for array in arrays):
        return None
    start, stop, by = (int(array.ravel()[0]) for array in arrays if array is not None)
    return slice(start, stop, by)


def _shape_given(node: Node) -> Shape | None:
    """The dims that a Shape node gives, not all of them known."""
    shape = node.input(0).shape
    return None if shape is None else shape[node.get("start", 0) : node.get("end")]


def _dims(shape: Shape | None, which: Any) -> Constant | None:
    if shape is None or which is None:
        return None
    try:
        chosen = np.asarray(shape, dtype=object)[which]
    except IndexError:  # left for the run to report
        return None
    dims = np.asarray(chosen, dtype=object)
    return Constant.of(dims.astype(np.int64)) if all(isinstance(dim, int) for dim in dims.ravel()) else None


def _check(node: Node, inputs: list[Value], model: Model) -> None:
    """:raises _DeclinedError: if a node with constant inputs must stay."""
    if node.subgraphs:
        raise _DeclinedError("it holds a subgraph")
    if (node.domain, node.op, node.overload) in model.functions:
        raise _DeclinedError("it calls a function")
    if not is_pure(node, model):
        raise _DeclinedError("it may give another result in every run")
    if any(value.dtype in (DType.STRING, None) for value in inputs):
        raise _DeclinedError("it works on strings")


def _model_of(node: Node, model: Model) -> tuple[Model, dict[str, Any]]:
    """A model of this node alone, its large inputs as inputs (no copy is made of them), and what to give for these."""
    graph, given = Graph("fold"), {}
    made: dict[Value, Value] = {}
    for value in node.inputs:
        if value is None or value in made:
            continue
        assert value.constant is not None
        made[value] = graph.add_value(value.name, value.type)
        if value.constant.nbytes <= _SMALL:
            graph.set_constant(made[value], value.constant)
        else:
            graph.set_inputs([*graph.inputs, made[value]])
            given[value.name] = value.constant.array
    inputs = [None if value is None else made[value] for value in node.inputs]
    outputs = [None if value is None else graph.add_value(value.name) for value in node.outputs]
    graph.add_node(node.op, inputs, outputs, node.attributes, domain=node.domain, name="node")
    graph.set_outputs([value for value in outputs if value is not None])
    imports = dict(imports_of(owning_function(node.owner, model), model))
    single = Model(graph, imports, ir_version=model.ir_version)
    infer(single)
    return single, given


def _constant(result: Any, value: Value, most: int) -> Constant:
    if not isinstance(result, np.ndarray) or result.dtype == object:
        raise _DeclinedError("its result is no tensor of numbers")
    constant = Constant.of(result)
    if value.dtype is not None and value.dtype != constant.dtype:
        raise _DeclinedError(f"ONNX Runtime gives {constant.dtype} for {value.dtype}")
    _check_size(constant.nbytes, most)
    return constant


def _check_size(size: int, most: int) -> None:
    if size > most:
        raise _DeclinedError(f"its result would take {size} bytes, more than {most} and than its inputs")
