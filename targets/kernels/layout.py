"""How activations and weights lie in memory, as one place that kernels, packing and schedules ask."""

from __future__ import annotations

from dataclasses import dataclass, replace

from deburr.targets.isa import ISAS, is_gpu
from deburr.targets.kernels.chunks import LONGEST
from deburr.targets.kernels.workload import Conv2d


@dataclass(frozen=True, slots=True)
class WeightLayout:
    """Packed weights of a convolution: ``[O/ob, J, kh, kw/taps, ib*taps/group, ob, group]``.

    J counts the input blocks that one output block reads: all of them, or with groups only the few that its groups span
    (`first_input_block`); a weight between channels of different groups is 0.

    :param group: consecutive input channels that one instruction multiplies and sums.
    :param dtype: what a weight is stored as.
    :param data_dtype: what activations become on their way into the padded tile.
    :param data_shift: what is taken off them there; the bias makes up for it.
    :param pixels: neighbours in a row that one instruction multiplies together, with as many output channels: its sums are a
        square, and so they lie.
    :param taps: neighbours in a row of the window that one instruction sums, the channels of each: images of few channels.
    """

    group: int
    dtype: str
    data_dtype: str
    data_shift: int = 0
    pixels: int = 1
    taps: int = 1


def weight_layout(workload: Conv2d, isa: str) -> WeightLayout:
    """The layout that the widest exact multiply-accumulate of `isa` wants.

    VNNI's vpdpbusd, 512 bits wide or 256, and i8mm's usdot take four u8 x s8; i8mm's usmmla takes eight, for two pixels. sdot
    takes four s8 x s8, so 128 is taken off the data. AVX2 has vpmaddubsw, whose int16 sums saturate, so both sides are widened
    to int16 and vpmaddwd takes two; NEON without sdot widens as well. The plain path leaves the choice to LLVM. A tensor core
    takes sixteen s8 x s8 or float16, dp4a four bytes; images of few channels have no sixteen, but neighbours in a row do, of
    float16. GPUs without dp4a multiply one by one, u8 as it is. aarch64 takes an element of float16 out of a register, or half
    of one.
    """
    on_tensor_cores = isa == "tensorcore" and workload.in_block % 16 == 0 and workload.out_block % 32 == 0
    taps = taps_of_a_sum(workload.in_block, workload.strides[1], workload.dilations[1])
    if isa == "tensorcore" and workload.out_block % 32 == 0 and workload.half and taps:
        return WeightLayout(16, "float16", "float16", taps=taps)
    if workload.dtype == "float32":
        by_element = bool(ISAS[isa].half) and workload.in_block % 4 == 0 and workload.out_block % 8 == 0
        kind = "float16" if workload.half and by_element else "float32"
        return WeightLayout(1, kind, kind)
    if on_tensor_cores:
        return WeightLayout(16, "int8", "int8", 128)
    if is_gpu(isa):
        by_fours = isa != "cuda" and workload.in_block % 4 == 0
        return WeightLayout(4, "int8", "int8", 128) if by_fours else WeightLayout(1, "int8", "uint8")
    planes = workload.in_block == 1 and workload.dilations[1] == 1
    return _along_row(isa, workload.out_block) if planes else _of_blocks(workload, isa)


def _of_blocks(workload: Conv2d, isa: str) -> WeightLayout:
    """For integers on a CPU, channels in blocks."""
    if isa == "avx512vnni" and workload.in_block % 4 == 0 and workload.out_block % 16 == 0:
        return WeightLayout(4, "int8", "uint8")
    if isa == "avxvnni" and workload.in_block % 4 == 0 and workload.out_block % 8 == 0:
        return WeightLayout(4, "int8", "uint8")
    if isa == "i8mm" and workload.in_block % 16 == 0 and workload.out_block % 2 == 0 and workload.out_width > 1:
        return WeightLayout(8, "int8", "uint8", pixels=2)
    if isa in ("dotprod", "i8mm") and workload.in_block % 4 == 0 and workload.out_block % 4 == 0:
        return WeightLayout(4, "int8", "uint8") if isa == "i8mm" else WeightLayout(4, "int8", "int8", 128)
    if isa in ("avx512vnni", "avxvnni", "avx2") and workload.in_block % 2 == 0 and workload.out_block % 8 == 0:
        return WeightLayout(2, "int16", "int16")
    return WeightLayout(1, "int16", "int16")


def _along_row(isa: str, out_block: int) -> WeightLayout:
    """For integers where each channel lies in a plane of its own: the same instructions, on neighbours in a row."""
    if isa in ("avx512vnni", "avxvnni") and out_block % ISAS[isa].lanes == 0:
        return WeightLayout(4, "int8", "uint8", taps=4)
    if isa in ("dotprod", "i8mm") and out_block % 4 == 0:
        kind, shift = ("uint8", 0) if isa == "i8mm" else ("int8", 128)
        return WeightLayout(4, "int8", kind, shift, taps=4)
    if isa in ("avx512vnni", "avxvnni", "avx2") and out_block % 8 == 0:
        return WeightLayout(2, "int16", "int16", taps=2)
    return WeightLayout(1, "int16", "int16")


def taps_of_a_sum(in_block: int, stride: int, dilation: int) -> int:
    """Neighbours in a row of the window that sixteen float16 hold, channels and all; 0 where they do not lie together.

    A fragment of a tensor core wants its pixels whole vectors of 16 bytes apart.
    """
    if in_block % 16 == 0:
        return 1
    return 16 // in_block if 16 % in_block == 0 and in_block >= 4 and stride * in_block % 8 == 0 and dilation == 1 else 0


def of_memory(weights: WeightLayout, isa: str) -> WeightLayout:
    """The layout with data as a stage "pad" leaves it: on a GPU as it came, since what multiplies takes the shift off, a
    register of four at a time."""
    return replace(weights, data_dtype="uint8", data_shift=0) if is_gpu(isa) and weights.data_shift else weights


def blocks(channels: int, block: int) -> int:
    """Blocks that hold `channels`."""
    return -(-channels // block)


def activation_shape(workload: Conv2d) -> tuple[int, int, int, int, int]:
    """Shape of a convolution's data."""
    w = workload
    return w.batch, blocks(w.in_channels, w.in_block), w.in_height, w.in_width, w.in_block


def output_shape(workload: Conv2d) -> tuple[int, int, int, int, int]:
    """Shape of a convolution's output, and of its residual."""
    w = workload
    return w.batch, blocks(w.out_channels, w.out_block), w.out_height, w.out_width, w.out_block


def input_blocks_spanned(workload: Conv2d) -> int:
    """J: how many input blocks one output block reads."""
    return max(last - first + 1 for first, last in _spans(workload))


def first_input_blocks(workload: Conv2d) -> list[int]:
    """The first input block that each output block reads."""
    spanned, total = input_blocks_spanned(workload), blocks(workload.in_channels, workload.in_block)
    return [min(first, total - spanned) for first, _ in _spans(workload)]


def _spans(workload: Conv2d) -> list[tuple[int, int]]:
    """First and last input block that hold channels of the groups of each output block."""
    w = workload
    outputs, inputs = w.out_channels // w.groups, w.in_channels // w.groups
    spans = []
    for start in range(0, w.out_channels, w.out_block):
        last = min(start + w.out_block, w.out_channels) - 1
        first_channel, last_channel = start // outputs * inputs, (last // outputs + 1) * inputs - 1
        spans.append((first_channel // w.in_block, last_channel // w.in_block))
    return spans


def weight_shape(workload: Conv2d, isa: str) -> tuple[int, ...]:
    """Shape of the packed weights of a convolution that is not depthwise."""
    w, weights = workload, weight_layout(workload, isa)
    spanned, outputs = input_blocks_spanned(w), blocks(w.out_channels, w.out_block)
    parts = w.in_block * weights.taps // weights.group
    return (outputs, spanned, w.kernel[0], blocks(w.kernel[1], weights.taps), parts, w.out_block, weights.group)


def depthwise_layout(workload: Conv2d, isa: str) -> WeightLayout:
    """What a depthwise kernel multiplies. NEON widens 16 bits in the multiplication itself, so 8 bits are widened once, on the
    way into the padded tile, in place of once for each tap. Windows are small enough for sums in float16."""
    if workload.half and ISAS[isa].half and workload.kernel[0] * workload.kernel[1] <= LONGEST:
        return WeightLayout(1, "float16", "float16")
    if workload.dtype == "float32":
        return WeightLayout(1, "float32", "float32")
    return WeightLayout(1, "int16", "int16") if ISAS[isa].architecture == "aarch64" else WeightLayout(1, "int8", "uint8")


def depthwise_weight_shape(workload: Conv2d) -> tuple[int, int, int, int]:
    """Shape of the packed weights of a depthwise convolution."""
    return blocks(workload.out_channels, workload.out_block), *workload.kernel, workload.out_block
