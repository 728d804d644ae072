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
    :param symmetric: activations have zero point 0 whatever their range.
    :param affine_weights: weights may have zero points other than 0.
    :param float_bias: biases stay float constants, with no DequantizeLinear.
    :param spreads: an operator of `float_output` gives integers wherever an operator follows that could read them, and not only
        where a weighted one does; what then nobody reads is taken back.
    :param fuses_sums: the convolution in front of an Add hands its sum over in float, with no quantizer between them; the other
        addend is quantized.
    :param products: a MatMul of two activations computes on integers, whatever gives them.
    :param one_scale: operators whose inputs and output all share one scale.
    :param per_tensor: weighted operators that take one scale for all their weights.
    :param everywhere: integers begin at the inputs of the model, not at the first weighted operator, and constants that
        arithmetic operators read are quantized too.
    """

    name: str
    roles: Mapping[str, Role]
    float_output: frozenset[str]
    activations: tuple[DType, ...]
    symmetric: bool = False
    affine_weights: bool = False
    float_bias: bool = False
    spreads: bool = False
    fuses_sums: bool = False
    products: bool = False
    one_scale: frozenset[str] = frozenset()
    per_tensor: frozenset[str] = frozenset()
    everywhere: bool = False

    def role(self, op: str, domain: str) -> Role | None:
        return self.roles.get(op) if domain in ("", "ai.onnx") else None


_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_MOVEMENT = ("DepthToSpace", "Flatten", "MaxPool", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze")
_CLAMPS = ("Clip", "Relu")


def _roles(*arithmetic: str) -> Mapping[str, Role]:
    """The table of a back end that computes these on integers, besides what all of them do."""
    table = {Role.WEIGHTED: _WEIGHTED, Role.ARITHMETIC: arithmetic, Role.MOVEMENT: _MOVEMENT, Role.CLAMP: _CLAMPS}
    return MappingProxyType({op: role for role, ops in table.items() for op in ops})


# ONNX Runtime's CPU kernels, as its graph transformers select them. It has no integer ConvTranspose: what is won there is the
# size of the file.
ORT = Dialect(
    "ort",
    _roles("Add", "AveragePool", "Concat", "GlobalAveragePool", "LeakyRelu", "Mul"),
    float_output=frozenset({"Gemm", "MatMul"}),
    # With s8 it leaves half of the convolutions in float; 16 bits it reads and writes, and computes in float between.
    activations=(DType.UINT8, DType.UINT16, DType.INT16),
    affine_weights=True,
)

# NVIDIA, TensorRT documentation, "Explicit Quantization", with its recommendations for the placement of Q/DQ layers: symmetric
# signed integers; weights per channel, activations per tensor; all inputs of weighted layers; outputs of weighted layers only
# for those who read integers; the residual input of a skip connection but not the other one; inputs and outputs of other
# quantizable layers (pooling, element-wise); rewrites that compare scales, as at Concat, happen where the scales are equal.
# Biases are float: an engine adds them to the scaled sum.
TENSORRT = Dialect(
    "tensorrt",
    _roles("Add", "AveragePool", "Concat", "GlobalAveragePool"),
    float_output=frozenset({*_WEIGHTED, *_MOVEMENT, *_CLAMPS}),
    activations=(DType.INT8,),
    symmetric=True,
    float_bias=True,
    spreads=True,
    fuses_sums=True,
    products=True,
    one_scale=frozenset({"Concat"}),
)

# OpenVINO documentation, "Low Precision Transformations": an operator runs on integers where all its inputs are quantized;
# dequantization moves on through what follows and is fused into the next quantizer, so quantizers stand in front of integer
# operators and nowhere else; inputs of Concat share their interval; activations are u8 with any zero point, weights s8.
# Ours: biases and one addend of a sum stay float. OpenVINO 2026.4 executes the same integer layers either way.
OPENVINO = Dialect(
    "openvino",
    _roles("Add", "AveragePool", "Concat", "GlobalAveragePool", "Mul"),
    float_output=frozenset({*_WEIGHTED, *_MOVEMENT, *_CLAMPS, "Add", "AveragePool", "GlobalAveragePool", "Mul"}),
    activations=(DType.UINT8, DType.INT8),
    float_bias=True,
    spreads=True,
    fuses_sums=True,
    products=True,
    one_scale=frozenset({"Concat"}),
)

# ONNX Runtime documentation, "QNN Execution Provider", and its get_qnn_qdq_config: the HTP takes a graph that is quantized
# throughout, every input, output and constant of it; u8 activations, or u16 ones with weights of 8 bits; scales per channel for
# Conv and ConvTranspose only.
# Softmax, GELU and the like read and give integers as a table would.
QNN = Dialect(
    "qnn",
    _roles(
        "Add",
        "AveragePool",
        "Concat",
        "Div",
        "Elu",
        "Gelu",
        "GlobalAveragePool",
        "HardSigmoid",
        "HardSwish",
        "LeakyRelu",
        "Mul",
        "Sigmoid",
        "Softmax",
        "Sub",
        "Tanh",
    ),
    float_output=frozenset(),
    activations=(DType.UINT8, DType.INT8, DType.UINT16),
    products=True,
    per_tensor=frozenset({"Gemm", "MatMul"}),
    everywhere=True,
)

DIALECTS: Mapping[str, Dialect] = MappingProxyType({dialect.name: dialect for dialect in (ORT, TENSORRT, OPENVINO, QNN)})


def find_dialect(name: str) -> Dialect:
    """:raises DeburrError: E203 for a name that is not in the table."""
    if name not in DIALECTS:
        raise DeburrError("E203", f"no dialect {name!r}", hint=f"there are {', '.join(DIALECTS)}")
    return DIALECTS[name]
