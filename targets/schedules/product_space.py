"""The search space of matrix products: register tiles of rows and columns, their split into tasks, unrolling."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from deburr.targets.kernels import layout
from deburr.targets.schedules import matmul, tile
from deburr.targets.schedules.search import LARGEST_BODY, LARGEST_WASTE, Space
from deburr.targets.schedules.tile import ConvSchedule

if TYPE_CHECKING:
    from deburr.targets.kernels.workload import MatMul
    from deburr.targets.target import Target


class ProductSpace(Space):
    """Blocks of columns are `oc`, rows `oh`, as in `matmul.default`."""

    def __init__(self, workload: MatMul, target: Target) -> None:
        self.workload, self.target = workload, target
        self.default = matmul.default(workload, target.isa, target.cores)

    @cached_property
    def options(self) -> Mapping[str, tuple[Any, ...]]:
        w, blocks = self.workload, layout.blocks(self.workload.columns, self.workload.block)
        small = self.target.cores > 1 and w.macs < 4 * tile.WORTH_A_THREAD
        parallel = {self.default.parallel, True, False} if small else {self.default.parallel}
        divisors = [size for size in range(1, blocks + 1) if blocks % size == 0]
        chosen: dict[str, Any] = {
            "oc_tile": [size for size in divisors if size <= 8],
            "oh_tile": range(1, min(w.rows, self._vectors) + 1),
            "oc_task": divisors,
            "oh_task": range(1, w.rows + 1),
            "parallel": sorted(parallel),
            "unroll": (0, 1),
        }
        kept = {"n_tile": (1,), "ow_tile": (1,), "columns_outside": (False,)}
        return {name: tuple(values) for name, values in {**kept, **chosen}.items()}

    def legal(self, schedule: ConvSchedule) -> bool:
        s, w = schedule, self.workload
        blocks, vectors = layout.blocks(w.columns, w.block), schedule.oc_tile * schedule.oh_tile
        if any(getattr(s, name) not in values for name, values in self.options.items()):
            return False
        body = vectors * (matmul.STEPS if s.unroll else 1)
        if vectors > self._vectors or blocks % (s.oc_tile * s.oc_task) or body > LARGEST_BODY:
            return False
        allowed = max(LARGEST_WASTE, matmul.rows_of(w, self.default) / w.rows)
        return matmul.rows_of(w, s) / w.rows <= allowed

    def estimate(self, schedule: ConvSchedule) -> float:
        w, registers = self.workload, tile.registers_for(self.workload, self.target.isa)
        return tile.estimate((1, schedule.oc_tile, schedule.oh_tile, 1), (1, w.rows, 1), registers, w.block)[0]

    @property
    def _vectors(self) -> int:
        """Sums of a block of columns that a register tile may have."""
        registers, chosen = tile.registers_for(self.workload, self.target.isa), self.default
        return max(registers.accumulators // registers.vectors(self.workload.block), chosen.oc_tile * chosen.oh_tile)
