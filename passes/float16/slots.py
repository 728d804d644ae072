"""Which inputs and outputs of a node may change from float32 to float16: the ONNX schema's type constraints say so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from deburr.ir.constants import Constant
from deburr.ir.model import Model
from deburr.ir.node import Node
from deburr.ir.op_kinds import OpKind
from deburr.ir.ops import OpFacts, facts_in
from deburr.ir.types import DType, TensorType
from deburr.ir.value import Value

# Operators whose output type is named by an attribute, and by no input.
_NAMED_BY = {"Cast": "to", "Constant": "value", "ConstantOfShape": "value"}


@dataclass(frozen=True, slots=True)
class Slots:
    """Of a node's inputs and outputs, those that may become float16 together; `attribute` has to change with the output."""

    inputs: tuple[bool, ...]
    outputs: tuple[bool, ...]
    attribute: str = ""

    def __bool__(self) -> bool:
        return any(self.inputs) or any(self.outputs)


def slots_of(node: Node, model: Model) -> Slots | str:
    """What may change, maybe nothing, or why a node that handles float32 tensors must stay as it is.

    A type that only inputs have is left alone where it is that of a ratio, of coordinates or of sizes, and not of the data:
    `roi` and `scales` of Resize, the `ratio` of Dropout, the `grid` of GridSample.
    """
    facts = facts_in(node, model)
    if node.subgraphs:
        return "it holds subgraphs, whose own nodes are converted"
    if facts.schema is None:
        return facts.reason or "its schema is not known"
    if facts.kind is OpKind.QUANTIZATION:
        return "it stands between reals and integers: scales keep their precision"
    if any(value is not None and not isinstance(value.type, TensorType) for value in (*node.inputs, *node.outputs)):
        return "an input or output is a sequence, or its type is not known"
    if node.op == "Cast" and all(value.dtype is not None and value.dtype.is_float for value in (node.input(0), node.output())):
        return Slots((False,), (False,))  # the model means what it says, and a second run finds what the first one put in
    slots = _by_schema(node, facts)
    if not slots and any(_is_float(value) for value in (*node.inputs, *node.outputs)):
        return "its schema has no float16 there"
    return slots


def _by_schema(node: Node, facts: OpFacts) -> Slots:
    schema = facts.schema
    takes_half = {entry.type_param_str for entry in schema.type_constraints if "tensor(float16)" in entry.allowed_type_strs}
    given = [_variable(schema.inputs, index) for index in range(len(node.inputs))]
    made = [_variable(schema.outputs, index) for index in range(len(node.outputs))]
    of_data = set(given) if facts.kind is OpKind.NORMALIZATION else {*made, *given[:1]}
    pairs = list(zip(node.inputs, given, strict=True))
    inputs = tuple(_is_float(value) and name in takes_half and name in of_data for value, name in pairs)
    changing = {name for name, may in zip(given, inputs, strict=True) if may}
    attribute = _attribute(node)
    outputs = tuple(
        _is_float(value) and name in takes_half and (name in changing or bool(attribute))
        for value, name in zip(node.outputs, made, strict=True)
    )
    return Slots(inputs, outputs, attribute)


def _variable(formal: Any, index: int) -> str:
    """The type variable of an input or output; the last one may stand for any number."""
    return str(formal[min(index, len(formal) - 1)].type_str)


def _attribute(node: Node) -> str:
    """The attribute that names float32 as the output's type, where float16 can stand in its place."""
    name = _NAMED_BY.get(node.op, "")
    value = node.get(name) if name else None
    if node.op == "Cast":
        return name if value == DType.FLOAT else ""
    return name if isinstance(value, Constant) and value.dtype is DType.FLOAT else ""


def _is_float(value: Value | None) -> bool:
    return value is not None and value.dtype is DType.FLOAT
