"""A copy of the model that lowering may edit: functions inlined, sizes fixed, cleaned up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deburr.ir.errors import DeburrError
from deburr.ir.model import Model
from deburr.ir.onnx_reader import read
from deburr.ir.onnx_writer import to_proto
from deburr.ir.types import Dim, Shape, TensorType
from deburr.ir.value import Value

OPSET = 13  # per-channel quantizers, axes as inputs


@dataclass(frozen=True)
class Sizes:
    """How large the axes are that the model leaves open.

    :param batch: samples per run, for every input whose first axis is open.
    :param symbols: other sizes by the symbol that the model gives them, or by input and axis, as "x.2".
    """

    batch: int = 1
    symbols: Mapping[str, int] | None = None


def copy_of(model: Model) -> Model:
    """An independent copy with the model's local functions inlined."""
    from onnx import inliner

    proto = to_proto(model)
    if model.functions:
        _give_defaults(proto)
        proto = inliner.inline_local_functions(proto)
    copy = read(proto)
    copy.folder = model.folder
    return copy


def _give_defaults(proto: Any) -> None:
    """Write the defaults of function attributes at the calls: onnx's inliner leaves them out."""
    defaults = {(function.domain, function.name, function.overload): function.attribute_proto for function in proto.functions}
    waiting = [*proto.graph.node, *(node for function in proto.functions for node in function.node)]
    while waiting:
        node = waiting.pop()
        given = {attribute.name for attribute in node.attribute}
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                waiting.extend(graph.node)
        node.attribute.extend(
            default for default in defaults.get((node.domain, node.op_type, node.overload), ()) if default.name not in given
        )


def require_open_batch(model: Model, batches: Sequence[int], symbols: Mapping[str, int] | None) -> None:
    """:raises DeburrError: E901 where no input leaves the size of its first axis open."""
    inputs = [value for value in model.graph.inputs if value.constant is None]
    if not any(_has_open_batch(value, symbols) for value in inputs):
        raise DeburrError(
            "E901", "the model fixes the batch size", where=f"batch {', '.join(map(str, batches))}",
            why="; ".join(f"input {value.name!r} is {value.type}" for value in inputs),
            hint="leave the batch sizes out, or export the model with a symbol for its first axis",
        )  # fmt: skip


def shares_open_batch(model: Model, symbols: Mapping[str, int] | None) -> bool:
    """Whether all inputs leave their first axis open, and the same one."""
    inputs = [value for value in model.graph.inputs if value.constant is None]
    firsts = {value.shape[0] if value.shape else 1 for value in inputs}
    return len(firsts) == 1 and all(_has_open_batch(value, symbols) for value in inputs)


def fixed_copy(model: Model, sizes: Sizes) -> Model:
    """An independent copy, functions inlined, of fixed sizes.

    :raises DeburrError: E901 where an axis other than the first is open and was not given.
    """
    copy = copy_of(model)
    fix_sizes(copy, sizes)
    return copy


def batch_of(model: Model, size: int) -> int:
    """The samples that one run of a model of fixed sizes takes: what its inputs agree on, else the `size` asked for."""
    firsts = {value.shape[0] for value in model.graph.inputs if value.constant is None and value.shape}
    found = firsts.pop() if len(firsts) == 1 else None
    return found if isinstance(found, int) else size


def _has_open_batch(value: Value, symbols: Mapping[str, int] | None) -> bool:
    if not value.shape or isinstance(value.shape[0], int):
        return False
    return not {value.shape[0], f"{value.name}.0"} & set(symbols or ())


def fix_sizes(model: Model, sizes: Sizes) -> None:
    """Give every axis of the inputs a number, and infer all shapes anew.

    :raises DeburrError: E901 where an axis other than the first is open and was not given.
    """
    from deburr.ir.inference import infer

    graph, known = model.graph, dict(sizes.symbols or {})
    for value in graph.inputs:
        first = value.shape[0] if value.shape else None
        if isinstance(first, str):
            known.setdefault(first, sizes.batch)
    for value in graph.inputs:
        if isinstance(value.type, TensorType) and value.shape is not None:
            graph.set_type(value, TensorType(value.type.dtype, _fixed(value, value.shape, known, sizes.batch)))
    declared = {value: value.type for value in graph.outputs}
    for value in graph.values:  # what the file declares of the others belongs to the open sizes
        if not value.is_input and value.constant is None and isinstance(value.type, TensorType):
            graph.set_type(value, TensorType(value.type.dtype) if value.is_output else None)
    infer(model, overwrite=True)
    for value, type_ in declared.items():  # behind an operator that inference does not know
        if value.shape is None and isinstance(type_, TensorType) and type_.shape is not None:
            shape = tuple(known.get(dim) if isinstance(dim, str) else dim for dim in type_.shape)
            graph.set_type(value, TensorType(type_.dtype, shape))


def clean_up(model: Model) -> list[str]:
    """Fold and simplify by deburr's own passes; the remarks that they left."""
    from deburr.passes import manager, pipeline
    from deburr.passes.core import Context

    context = Context(model)
    text = "clean" if model.opset >= OPSET else f"raise-opset{{version={OPSET}}},clean"
    manager.run(pipeline.parse(text), context)
    return [str(remark) for remark in context.remarks]


def _fixed(value: Value, shape: Shape, known: Mapping[str, int], batch: int) -> Shape:
    sizes = [_size(f"{value.name}.{axis}", dim, known) for axis, dim in enumerate(shape)]
    if sizes and sizes[0] is None:
        sizes[0] = batch
    for axis, size in enumerate(sizes):
        if not isinstance(size, int) or size < 1:
            symbol = size if isinstance(size, str) else f"{value.name}.{axis}"
            raise DeburrError(
                "E901", "a size is open", where=f"input {value.name!r}, axis {axis}",
                why=f"the model declares {value.type} and code is made for fixed sizes",
                hint=f"give symbols={{{symbol!r}: SIZE}} to compile, or fix the shape in the model",
            )  # fmt: skip
    return tuple(sizes)


def _size(place: str, dim: Dim, known: Mapping[str, int]) -> Dim:
    """What is known of a dim, by its place ("x.2") or by its symbol; else the dim."""
    if isinstance(dim, int):
        return dim
    return known.get(place, dim if dim is None else known.get(dim, dim))
