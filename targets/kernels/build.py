"""From a workload to a scheduled TIR function: the one entrance to kernels and schedules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deburr.targets.kernels import build_gpu, conv2d, depthwise, elementwise, matmul, pool, rows, winograd
from deburr.targets.kernels.workload import Conv2d, MatMul, Pool2d, Rows, Workload
from deburr.targets.schedules import cpu, space, tile
from deburr.targets.schedules import matmul as matmul_schedule
from deburr.targets.schedules import rows as rows_schedule
from deburr.targets.schedules import winograd as winograd_schedule

if TYPE_CHECKING:
    from deburr.targets.kernels.conv2d import Definition
    from deburr.targets.schedules.tile import ConvSchedule
    from deburr.targets.target import Target


@dataclass(frozen=True, slots=True)
class Argument:
    """One tensor of a kernel's calling convention."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class Kernel:
    """A scheduled function and its arguments in calling order; the last one, "output", is written.

    :param function: a `tvm.tirx.PrimFunc`, in destination-passing style.
    """

    function: Any
    arguments: tuple[Argument, ...]


def kernel(workload: Workload, target: Target, schedule: ConvSchedule | None = None) -> Kernel:
    """The kernel that computes `workload` on `target`.

    Arguments of a convolution: data, weight, bias, multiplier (integer only), residual (where there is one), output. Those of a
    matrix product are the same, with a computed `b` for the weight and no bias then; of a sum: a, b, output; of what
    normalizes: data, scale, bias, output; of everything else: data, output. `pack` makes the constant ones.

    :param schedule: tile sizes of a convolution or pool; the analytic default if None.
    """
    if target.gpu:
        definition, module = build_gpu.scheduled(workload, target.isa)
        return Kernel(module["main"], _arguments(definition))
    match workload:
        case Conv2d() if workload.is_blocked_depthwise:
            cut = schedule or space.default_schedule(workload, target)
            definition = depthwise.define(workload, target.isa, cut.extent(workload))
            module = cpu.reduction(_module(definition), cut)
        case Conv2d() if size := winograd.tile_size(workload, target.isa):
            cut = schedule or space.default_schedule(workload, target)
            definition = winograd.define(workload, size, cut.extent(winograd.grid(workload, size)))
            module = winograd_schedule.schedule(_module(definition), workload, size, target.isa, cut)
        case Conv2d():
            cut = schedule or space.default_schedule(workload, target)
            if cut.ow_tile % tile.step_of(workload, target.isa):
                raise ValueError(f"{cut.ow_tile} columns in a register tile, where an instruction takes them in pairs")
            definition = conv2d.define(workload, target.isa, cut.extent(workload))
            module = cpu.convolution(_module(definition), workload, target.isa, cut)
        case MatMul():
            cut = schedule or matmul_schedule.default(workload, target.isa, target.cores)
            definition = matmul.define(workload, target.isa, matmul_schedule.rows_of(workload, cut))
            module = matmul_schedule.schedule(_module(definition), workload, target.isa, cut)
        case Rows():
            definition = rows.define(workload)
            module = rows_schedule.schedule(_module(definition), workload, parallel=target.cores > 1)
        case Pool2d():
            definition = pool.define(workload)
            module = cpu.reduction(_module(definition), schedule or space.default_schedule(workload, target))
        case _:
            definition = elementwise.define(workload)
            module = cpu.elementwise(_module(definition), _elements(definition) >= 50_000)
    return Kernel(module["main"], _arguments(definition))


def _arguments(definition: Definition) -> tuple[Argument, ...]:
    return tuple(
        Argument(tensor.op.name, tuple(int(size) for size in tensor.shape), str(tensor.dtype))
        for tensor in definition.arguments
    )


def _module(definition: Definition) -> Any:
    import tvm
    from tvm import te

    return tvm.IRModule({"main": te.create_prim_func(list(definition.arguments))})


def _elements(definition: Definition) -> int:
    """Elements that a kernel writes."""
    count = 1
    for size in definition.arguments[-1].shape:
        count *= int(size)
    return count
