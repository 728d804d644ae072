"""The search space of a template: which schedules are legal for a workload.

The space is small on purpose. Register tiles, the split into tasks (which is what a cache holds at a time, too), the order of
loops in a task and unrolling are in it; that sums stay in registers over the whole reduction is not up for search.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from deburr.targets.kernels import layout, winograd
from deburr.targets.kernels.workload import Conv2d, MatMul, Pool2d, Workload
from deburr.targets.schedules import tile
from deburr.targets.schedules.product_space import ProductSpace
from deburr.targets.schedules.search import LARGEST_BODY, LARGEST_WASTE, Space
from deburr.targets.schedules.tile import ConvSchedule

if TYPE_CHECKING:
    from deburr.targets.target import Target


def is_tunable(workload: Workload) -> bool:
    """Whether a template with a search space computes `workload`."""
    return isinstance(workload, Conv2d | Pool2d | MatMul)


def space(workload: Conv2d | Pool2d | MatMul, target: Target) -> Space:
    """The space of a workload that is tunable."""
    return ProductSpace(workload, target) if isinstance(workload, MatMul) else WindowSpace(workload, target)


def default_schedule(workload: Conv2d | Pool2d, target: Target) -> ConvSchedule:
    """The analytic choice that needs no measurement."""
    if isinstance(workload, Pool2d):
        shape = (workload.batch, layout.blocks(workload.channels, workload.block), workload.out_height, workload.out_width)
        operations = shape[0] * shape[1] * shape[2] * shape[3] * workload.block * workload.kernel[0] * workload.kernel[1]
        return tile.over_window((*shape, workload.block), operations, target.isa, target.cores, rounded=False)
    if workload.is_blocked_depthwise:
        return tile.over_window(layout.output_shape(workload), workload.macs, target.isa, target.cores, rounded=True)
    size = winograd.tile_size(workload, target.isa)
    if size:
        return tile.over_tiles(winograd.grid(workload, size), target.isa, target.cores)
    return tile.default(workload, target.isa, target.cores)


class WindowSpace(Space):
    """Of what goes over an image: convolutions and pools."""

    def __init__(self, workload: Conv2d | Pool2d, target: Target) -> None:
        self.workload, self.target = workload, target
        self._winograd = winograd.tile_size(workload, target.isa) if isinstance(workload, Conv2d) else 0
        # What is cut up: pixels, or tiles of them.
        self._grid = winograd.grid(workload, self._winograd) if self._winograd and isinstance(workload, Conv2d) else workload
        self.default = default_schedule(workload, target)

    @cached_property
    def options(self) -> Mapping[str, tuple[Any, ...]]:
        w, (batch, blocks, rows, columns) = self.workload, self._sizes
        vectors, step = self._accumulators, tile.step_of(w, self.target.isa) if self._is_dense else 1  # type: ignore[arg-type]
        parallel = {self.default.parallel, True, False} if self.target.cores > 1 and self._is_small else {self.default.parallel}
        chosen = {
            "n_tile": range(1, min(batch, vectors) + 1)
            if rows * columns == 1 and self._is_dense and not self._winograd
            else (1,),
            "oc_tile": [size for size in range(1, 9) if blocks % size == 0] if self._is_dense and w.groups == 1 else (1,),  # type: ignore[union-attr]
            "oh_tile": range(1, min(rows, 4) + 1),
            "ow_tile": range(step, min(-(-columns // step) * step, vectors) + 1, step),
            "oc_task": [size for size in range(1, blocks + 1) if blocks % size == 0],
            "oh_task": range(1, rows + 1),
            "parallel": sorted(parallel),
            "columns_outside": (False,) if self._winograd else (False, True),
            "unroll": (0, 1, 2),
        }
        return {name: tuple(values) for name, values in chosen.items()}

    def legal(self, schedule: ConvSchedule) -> bool:
        s, (_, blocks, _, columns) = schedule, self._sizes
        vectors = s.n_tile * s.oc_tile * s.oh_tile * s.ow_tile
        if any(getattr(s, name) not in values for name, values in self.options.items()):
            return False
        if vectors > self._accumulators or vectors * self._unrolled(s) > LARGEST_BODY or blocks % (s.oc_tile * s.oc_task):
            return False
        if self._waste(s) > (1 if isinstance(self.workload, Pool2d) else max(LARGEST_WASTE, self._waste(self.default))):
            return False
        return not s.columns_outside or (columns > s.ow_tile and s.oc_task * s.oh_task > 1)

    def estimate(self, schedule: ConvSchedule) -> float:
        if not self._is_dense:
            return 0.0
        batch, _, rows, columns = self._sizes
        cut = (schedule.n_tile, schedule.oc_tile, schedule.oh_tile, schedule.ow_tile)
        registers = tile.registers_for(self._grid, self.target.isa)  # type: ignore[arg-type]
        weights = tile.weights_of_block(self._grid, self.target.isa)  # type: ignore[arg-type]
        return tile.estimate(cut, (batch, rows, columns), registers, self._grid.out_block, weights)[0]  # type: ignore[union-attr]

    @property
    def _is_dense(self) -> bool:
        return isinstance(self.workload, Conv2d) and not self.workload.is_blocked_depthwise

    @property
    def _is_small(self) -> bool:
        """Whether threads might not be worth their price. Far from the break-even only a busy machine would say so."""
        return self._operations < 4 * tile.WORTH_A_THREAD

    @property
    def _operations(self) -> int:
        batch, blocks, rows, columns = self._sizes
        taps = self.workload.kernel[0] * self.workload.kernel[1]
        return self.workload.macs if isinstance(self.workload, Conv2d) else batch * blocks * rows * columns * 16 * taps

    @property
    def _sizes(self) -> tuple[int, int, int, int]:
        """Images, blocks of channels, rows and columns of the output, or of its tiles."""
        w = self._grid
        channels, block = (w.out_channels, w.out_block) if isinstance(w, Conv2d) else (w.channels, w.block)
        return w.batch, layout.blocks(channels, block), w.out_height, w.out_width

    @cached_property
    def _accumulators(self) -> int:
        """Vectors of sums that a register tile may have."""
        w, d, registers = self.workload, self.default, tile.REGISTERS[self.target.isa]
        if isinstance(w, Conv2d):
            largest = tile.largest_tile(w, self.target.isa)
        else:
            largest = registers.accumulators // registers.vectors(w.block)
        return max(largest, d.n_tile * d.oc_tile * d.oh_tile * d.ow_tile)

    def _waste(self, schedule: ConvSchedule) -> float:
        """What is computed over what is wanted; 1 where tiles and tasks divide evenly."""
        s, (batch, _, rows, columns) = schedule, self._sizes
        waste = 1.0
        for size, step in ((batch, s.n_tile), (rows, s.oh_tile * s.oh_task), (columns, s.ow_tile)):
            waste *= -(-size // step) * step / size
        return waste

    def _unrolled(self, schedule: ConvSchedule) -> int:
        """How often a register tile stands in the unrolled body."""
        w, size = self._grid, 1
        taps = [*w.kernel]
        if isinstance(w, Conv2d) and self._is_dense:
            _, _, *taps, _, group = layout.weight_shape(w, self.target.isa)
            taps += [] if self._has_instruction(group) else [group]
        for extent in taps[len(taps) - schedule.unroll :]:
            size *= extent
        return size

    def _has_instruction(self, group: int) -> bool:
        """Whether an instruction takes the group, so that no loop over it is left (`intrinsics.dot` would load TVM)."""
        return self.target.isa in ("i8mm", "dotprod", "neon") or (group > 1 and self.target.isa != "generic")
