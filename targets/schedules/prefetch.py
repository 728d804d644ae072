"""Weights that are needed next are fetched while the present ones are multiplied.

The weights of a tile of channels are gone over once for each tile of pixels; the first time they come from memory, which the
hardware foresees badly, and the multipliers wait. So each step of a reduction asks for a few lines of those that come next. It
saves up to a third of a layer's time where weights are most of what it reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from deburr.targets.kernels import layout
from deburr.targets.schedules.tile import is_mostly_weights

if TYPE_CHECKING:
    from deburr.targets.kernels.workload import Conv2d
    from deburr.targets.schedules.tile import ConvSchedule

    Schedule = Any  # tvm.s_tir.Schedule
    Loop = Any
    For = Any  # tvm.tirx.For
    Expression = Any

LINE = 64  # bytes that a cache fetches together
NEAR = (0, 2, 1)  # what llvm.prefetch wants to know: for reading, into the second cache, and it is data
ROOM = 512 * 1024  # bytes of data that leave room for weights in the second cache


def pays(workload: Conv2d, tile: ConvSchedule) -> bool:
    """Whether weights come from memory, and pixels are many enough to fetch the next ones meanwhile."""
    w = workload
    pixels = min(w.in_height * w.in_width, w.out_height * w.out_width * w.kernel[0] * w.kernel[1])
    data = w.in_channels * pixels * (4 if w.dtype == "float32" else 1)
    one_tile = tile.oh_tile * tile.ow_tile >= w.out_height * w.out_width
    return is_mostly_weights(w) and data <= ROOM and not tile.columns_outside and not one_tile


def weights(schedule: Schedule, workload: Conv2d, tile: ConvSchedule, tiles: Sequence[Loop], steps: Sequence[Loop]) -> None:
    """Add requests for the weights of the next tile of output channels. The last thing to be done with a schedule.

    :param tiles: the loops of tasks, of tiles of channels in a task, and those of tiles of pixels.
    :param steps: the reduction's loops, outermost first; requests stand in the last one.
    """
    from tvm import tirx

    task, channels, *pixels = (schedule.get(loop) for loop in tiles)
    outputs, *block = (int(size) for size in schedule.mod["main"].params[1].shape)
    same = int(task.extent) // (layout.blocks(workload.out_channels, workload.out_block) // tile.oc_tile // tile.oc_task)
    following = task.loop_var // same * tile.oc_task + channels.loop_var + 1
    first = tirx.min(following * tile.oc_tile, outputs - tile.oc_tile)  # the last tile has no next one
    request(schedule, pixels, steps, [[first]], tile.oc_tile * prod(block))


def request(
    schedule: Schedule, tiles: Sequence[For], steps: Sequence[Loop], parts: Sequence[Sequence[Expression]], size: int
) -> None:
    """Spread requests for parts of the weights over loops.

    :param tiles: the loops that surround `steps`.
    :param steps: of the schedule; requests stand in the last one.
    :param parts: the first indices of each.
    :param size: of a part, in elements.
    """
    from tvm import tirx

    loops = [*tiles, *(schedule.get(loop) for loop in steps)]
    weight = schedule.mod["main"].params[1]
    elements = LINE // np.dtype(str(weight.dtype)).itemsize
    lines = -(-size // elements)
    count = -(-lines // prod(int(loop.extent) for loop in loops))
    position: Expression = 0
    for loop in loops:
        position = position * loop.extent + loop.loop_var
    start = tirx.min(position * count, lines - count)  # never beyond the part
    offsets = [(start + index) * elements for index in range(count)]
    how = [tirx.const(number, "int32") for number in NEAR]
    requests = []
    for part in parts:
        zeros = [0] * (len(weight.shape) - len(part) - 1)
        addresses = [weight.ptr_to([*part, *zeros, offset]) for offset in offsets]
        requests += [tirx.Evaluate(tirx.call_llvm_intrin("void", "llvm.prefetch", address, *how)) for address in addresses]
    last = loops[-1]
    body = tirx.SeqStmt([*requests, last.body])
    changed = tirx.For(last.loop_var, last.min, last.extent, last.kind, body, last.thread_binding, last.annotations)
    schedule.state.replace(schedule.get_sref(steps[-1]), changed)
