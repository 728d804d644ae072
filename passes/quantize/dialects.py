"""Dialects: which operators a back end computes on integers, and what it expects around them.

Every emitted model is ONNX and means the same everywhere; a dialect says where QuantizeLinear and DequantizeLinear must stand
so that one back end recognizes the patterns that it fuses. What an operator outside the table reads and gives stays float.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from deburr.ir.errors import DeburrError
from deburr.ir.types import DType


class Role(enum.Enum):
    """How an operator takes part in a quantized graph."""

    WEIGHTED = "multiplies data by constant weights"
    ARITHMETIC = "computes on integers; inputs and output each have a scale of their own"
    MOVEMENT = "moves or selects integers; the output has the scale of input 0"
    CLAMP = "falls away where the quantizer behind it clamps just the same"


@dataclass(frozen=True, slots=True)
class Dialect:
    """The rules of one back end.

    :param roles: operators of the default domain.
    :param float_output: those that may end in float, so that no quantizer follows where nothing needs one.
    :param activations: the types that tensors between operators may have; the first is the default.
    """

    name: str
    roles: Mapping[str, Role]
    float_output: frozenset[str]
    activations: tuple[DType, ...]

    def role(self, op: str, domain: str) -> Role | None:
        return self.roles.get(op) if domain in ("", "ai.onnx") else None


# ONNX Runtime's CPU kernels, as its graph transformers select them. It has no integer ConvTranspose: what is won there is the
# size of the file.
ORT = Dialect(
    "ort",
    MappingProxyType(
        {
            **dict.fromkeys(("Conv", "ConvTranspose", "Gemm", "MatMul"), Role.WEIGHTED),
            **dict.fromkeys(("Add", "AveragePool", "Concat", "GlobalAveragePool", "LeakyRelu", "Mul"), Role.ARITHMETIC),
            **dict.fromkeys(("DepthToSpace", "Flatten", "MaxPool", "Reshape", "Slice", "Split"), Role.MOVEMENT),
            **dict.fromkeys(("Squeeze", "Transpose", "Unsqueeze"), Role.MOVEMENT),
            **dict.fromkeys(("Clip", "Relu"), Role.CLAMP),
        }
    ),
    float_output=frozenset({"Gemm", "MatMul"}),
    activations=(DType.UINT8,),  # with s8 it leaves half of the convolutions in float
)

DIALECTS: Mapping[str, Dialect] = MappingProxyType({dialect.name: dialect for dialect in (ORT,)})


def find_dialect(name: str) -> Dialect:
    """:raises DeburrError: E203 for a name that is not in the table."""
    if name not in DIALECTS:
        raise DeburrError("E203", f"no dialect {name!r}", hint=f"there are {', '.join(DIALECTS)}")
    return DIALECTS[name]
