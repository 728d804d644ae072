"""The first layer's image: few channels, a plane each (blocks of 1), and an instruction that multiplies neighbours of a row.

Where an instruction sums products of four consecutive bytes, channels in a block of four waste a quarter of them on an image
of three channels, and three quarters on one of a single channel. Of a row of the window it wastes less: seven columns are two
steps. At equal steps planes win too: they are a quarter smaller, and copied in long vectors.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from deburr.targets.kernels import layout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deburr.targets.kernels.layout import WeightLayout
    from deburr.targets.kernels.workload import Conv2d

    Tensor = Any  # tvm.te.Tensor
    Expression = Any

LONGEST, SHORTEST = 64, 8  # bytes that one vector copies


def pays(readers: Sequence[Conv2d], isa: str) -> bool:
    """Whether an image is best given to its convolutions as planes.

    :param readers: all that read it, in the blocks that they would have otherwise.
    """
    return bool(readers) and all(_pays(reader, replace(reader, in_block=1), isa) for reader in readers)


def _pays(blocks: Conv2d, planes: Conv2d, isa: str) -> bool:
    # Rows of a prime number of columns would be copied one byte at a time.
    along_row = layout.weight_layout(planes, isa).taps > 1 and vector(planes.in_width) >= SHORTEST
    return along_row and _steps(planes, isa) <= _steps(blocks, isa)


def _steps(workload: Conv2d, isa: str) -> int:
    """Multiplications of a window, each by one instruction and of one vector of output channels."""
    _, spanned, height, width, parts, _, _ = layout.weight_shape(workload, isa)
    return spanned * height * width * parts


def vector(width: int) -> int:
    """How many columns are copied at a time. They divide a row: a vector lies inside the image or outside."""
    return max(size for size in range(1, LONGEST + 1) if width % size == 0)


def left_border(workload: Conv2d) -> int:
    """Columns left of the image in the copy: whole vectors."""
    size = vector(workload.in_width)
    return -(-workload.pads[1] // size) * size


def copy(data: Tensor, workload: Conv2d, weights: WeightLayout, extent: tuple[int, int, int]) -> Tensor:
    """Stage "pad", [n, channel, row, 1, column]: the image with its border, as it is multiplied; columns lie side by side.

    :param extent: images, rows and columns that are computed.
    """
    from tvm import te, tirx

    from deburr.targets.kernels.conv2d import needed_size, signed

    w, size, left = workload, vector(workload.in_width), left_border(workload)
    rows = needed_size(extent[1], w.strides[0], w.kernel[0], w.dilations[0])
    steps = -(-w.kernel[1] // weights.group)
    columns = left - w.pads[1] + (extent[2] - 1) * w.strides[1] + steps * weights.group
    zero = tirx.const(w.data_zero_point - weights.data_shift, weights.data_dtype)

    def element(n: Expression, i: Expression, y: Expression, _: Expression, x: Expression) -> Expression:
        value = signed(data[n, i, y - w.pads[0], x - left, 0], weights.data_shift).astype(weights.data_dtype)
        # Of a vector as a whole, so that it stays one.
        end = (left + w.in_width) // size
        checks = [x // size >= left // size] * (left > 0) + [x // size < end] * (columns > end * size)
        checks += [y >= w.pads[0]] * (w.pads[0] > 0) + [y < w.in_height + w.pads[0]] * (rows > w.in_height + w.pads[0])
        checks += [n < w.batch] * (extent[0] > w.batch)
        return tirx.if_then_else(tirx.all(*checks), value, zero) if checks else value

    return te.compute((extent[0], w.in_channels, rows, 1, -(-columns // size) * size), element, name="pad")
