"""What one fused group computes: plain numbers, hashable, the key of a kernel and of its tuning records.

Activations are blocked, [N, ceil(C / block), H, W, block]; channels beyond C hold anything on the way in and on the way out.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod


@dataclass(frozen=True, slots=True)
class Requantize:
    """int32 accumulator -> u8: ``clamp(int32(nearbyint(float32(acc) * multiplier[c])) + zero_point, low, high)``."""

    zero_point: int
    low: int = 0
    high: int = 255


@dataclass(frozen=True, slots=True)
class FixedPointAdd:
    """u8 + u8 -> u8, with ``half = (1 << (shift - 1)) + offset``.

    ``clamp((((a - a_zero) * a_multiplier + (b - b_zero) * b_multiplier + half) >> shift) + zero_point, low, high)``
    """

    a_zero: int
    a_multiplier: int  # about scale_a / scale_out * 2**shift; 255 times both is at most 2**31 - 2**22
    b_zero: int
    b_multiplier: int
    shift: int
    zero_point: int
    low: int = 0
    high: int = 255
    offset: int = 0  # decides near ties: small against the half


@dataclass(frozen=True, slots=True)
class FloatEpilogue:
    """float32: ``clamp(acc + residual, low, high)``; an infinite bound is no bound."""

    residual: bool = False
    low: float = float("-inf")
    high: float = float("inf")


@dataclass(frozen=True, slots=True)
class Conv2d:
    """A convolution with bias and epilogue; Gemm is the case 1x1 on 1x1.

    Integer (`dtype` "uint8"): u8 data, s8 weights, s32 bias [O] (zero point of the data folded in), f32 multiplier [O], and
    a u8 residual of the output's shape where `add` is set. `requantize` None: the output is float32, ``acc * multiplier``.
    Float (`dtype` "float32"): f32 data, weights and bias, and an f32 residual where ``float_epilogue.residual``. `half`: data
    and weights may be rounded to float16 before they are multiplied, where an instruction wants that.
    """

    batch: int
    in_channels: int
    in_height: int
    in_width: int
    out_channels: int
    kernel: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)  # top, left, bottom, right
    dilations: tuple[int, int] = (1, 1)
    groups: int = 1
    dtype: str = "uint8"
    in_block: int = 16
    out_block: int = 16
    data_zero_point: int = 0  # what padding writes
    requantize: Requantize | None = None
    add: FixedPointAdd | None = None  # a: the requantized convolution, b: the residual
    float_epilogue: FloatEpilogue | None = None
    half: bool = False

    @property
    def out_height(self) -> int:
        return _out_size(self.in_height, self.kernel[0], self.strides[0], self.pads[0] + self.pads[2], self.dilations[0])

    @property
    def out_width(self) -> int:
        return _out_size(self.in_width, self.kernel[1], self.strides[1], self.pads[1] + self.pads[3], self.dilations[1])

    @property
    def is_depthwise(self) -> bool:
        return self.groups == self.in_channels == self.out_channels and self.groups > 1

    @property
    def is_blocked_depthwise(self) -> bool:
        """Depthwise, with one layout in and out: the case that has a kernel of its own."""
        return self.is_depthwise and self.in_block == self.out_block

    @property
    def macs(self) -> int:
        taps = self.kernel[0] * self.kernel[1] * self.in_channels // self.groups
        return self.batch * self.out_channels * self.out_height * self.out_width * taps


@dataclass(frozen=True, slots=True)
class Operand:
    """How a matrix lies in memory: `order` names the logical axis of each physical one, -1 where that has one element.

    Logical axes are the batch's, then rows and columns. A batch axis that `order` leaves out is repeated.
    """

    shape: tuple[int, ...]
    order: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class MatMul:
    """``out[..., m, n] = epilogue(sum_k a[..., m, k] * b[..., k, n])``, nothing in blocks but what is packed.

    Integer (`dtype` "uint8"): u8 `a`; `b` None is a constant s8 matrix, packed beforehand, with an s32 bias [N] (zero point of
    `a` folded in); else `b` is u8, both zero points are in the workload and there is no bias. An f32 multiplier [N], then as
    `Conv2d`; a float result takes an f32 residual. Float: likewise, `half` included, bias [N] where `b` is None, and `scale`
    on the sums.
    """

    a: Operand
    b: Operand | None
    out: Operand
    batch: tuple[int, ...]
    rows: int
    columns: int
    depth: int
    dtype: str = "uint8"
    block: int = 16  # columns that are packed together
    a_zero_point: int = 0
    b_zero_point: int = 0
    scale: float = 1.0
    requantize: Requantize | None = None
    add: FixedPointAdd | None = None
    float_epilogue: FloatEpilogue | None = None
    half: bool = False

    @property
    def out_dtype(self) -> str:
        return "uint8" if self.requantize is not None else "float32"

    @property
    def batches(self) -> int:
        return prod(self.batch)

    @property
    def macs(self) -> int:
        return self.batches * self.rows * self.columns * self.depth


@dataclass(frozen=True, slots=True)
class Pool2d:
    """Max pooling (bits unchanged), or average pooling with requantization; global pooling is a kernel as large as the image.

    Average over u8: ``clamp(nearbyint(float32(sum(x - data_zero_point)) * multiplier) + zero_point)`` with one scalar
    `multiplier` (it holds 1 / count); ``count_include_pad`` False is only allowed without padding. Max never sees padding.
    """

    kind: str  # "max" | "average"
    batch: int
    channels: int
    in_height: int
    in_width: int
    kernel: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dtype: str = "uint8"
    block: int = 16
    data_zero_point: int = 0
    multiplier: float = 1.0
    requantize: Requantize | None = None

    @property
    def out_height(self) -> int:
        return _out_size(self.in_height, self.kernel[0], self.strides[0], self.pads[0] + self.pads[2], 1)

    @property
    def out_width(self) -> int:
        return _out_size(self.in_width, self.kernel[1], self.strides[1], self.pads[1] + self.pads[3], 1)


@dataclass(frozen=True, slots=True)
class Rows:
    """What looks at a whole row of a row-major float32 matrix to compute each of its elements, or one number for the row.

    `kind` "softmax"; "normalize", ``(x - mean) / sqrt(variance + epsilon) * scale[c] + bias[c]`` with the c of element i being
    ``i // inner % channels``, counted through all rows; "mean", "sum", "max", "min" give [rows].
    """

    kind: str
    rows: int
    size: int
    lanes: int
    channels: int = 0
    inner: int = 1
    epsilon: float = 0.0


@dataclass(frozen=True, slots=True)
class Add:
    """Elementwise sum of two blocked tensors of one shape: `add` for u8, `float_epilogue` for float32."""

    shape: tuple[int, ...]
    dtype: str = "uint8"
    add: FixedPointAdd | None = None
    float_epilogue: FloatEpilogue | None = None


@dataclass(frozen=True, slots=True)
class Quantize:
    """float32 NCHW -> u8 blocked: ``clamp(int32(nearbyint(x * inverse_scale)) + zero_point, 0, 255)``."""

    batch: int
    channels: int
    height: int
    width: int
    inverse_scale: float
    zero_point: int
    block: int = 16


@dataclass(frozen=True, slots=True)
class Dequantize:
    """u8 blocked -> float32 NCHW: ``float32(q - zero_point) * scale``; layout is changed on the way."""

    batch: int
    channels: int
    height: int
    width: int
    scale: float
    zero_point: int
    block: int = 16


@dataclass(frozen=True, slots=True)
class ChangeLayout:
    """Between blocked and plain NCHW (`block` 0 is plain), bits unchanged; padding channels are written as 0."""

    batch: int
    channels: int
    height: int
    width: int
    dtype: str
    from_block: int
    to_block: int


Workload = Conv2d | MatMul | Pool2d | Rows | Add | Quantize | Dequantize | ChangeLayout


def _out_size(size: int, kernel: int, stride: int, pad: int, dilation: int) -> int:
    return (size + pad - dilation * (kernel - 1) - 1) // stride + 1
