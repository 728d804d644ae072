"""From a workload to a function scheduled for a GPU: what `build.kernel` calls for targets that have one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deburr.targets.kernels import conv2d, depthwise, elementwise, fragments, layout, matmul, pool, rows
from deburr.targets.kernels.workload import ChangeLayout, Conv2d, MatMul, Pool2d, Rows, Workload
from deburr.targets.schedules.cuda import cut, register_tile, rounding, tensor_core
from deburr.targets.schedules.cuda import elementwise as elementwise_schedule
from deburr.targets.schedules.cuda import rows as rows_schedule

if TYPE_CHECKING:
    from deburr.targets.kernels.conv2d import Definition


def scheduled(workload: Workload, isa: str) -> tuple[Definition, Any]:
    """What is computed, and the module whose "main" computes it with every stage bound to threads."""
    rounding.register()
    match workload:
        case Conv2d() if workload.is_blocked_depthwise:
            w = workload
            definition = depthwise.define(w, isa, (w.batch, w.out_height, w.out_width))
            return definition, elementwise_schedule.window(_module(definition))
        case Conv2d():
            return _convolution(workload, isa)
        case MatMul():
            return _product(workload, isa)
        case Rows():
            definition = rows.define(workload)
            return definition, rows_schedule.schedule(_module(definition))
        case Pool2d():
            definition = pool.define(workload)
            return definition, elementwise_schedule.window(_module(definition))
        case _:
            definition = elementwise.define(workload)
            return definition, elementwise_schedule.elementwise(_module(definition), _widest(workload))


def _convolution(workload: Conv2d, isa: str) -> tuple[Definition, Any]:
    w, weights = workload, layout.weight_layout(workload, isa)
    if weights.group == 16:
        best = cut.of_convolution(w)
        extent = (w.batch, cut.rounded(w.out_height, best.rows), cut.rounded(w.out_width, best.columns))
        definition = fragments.conv2d_fragments(w, isa, extent)
        return definition, tensor_core.convolution(_module(definition), w, best)
    tile = register_tile.of_convolution(w)
    extent = (w.batch, cut.rounded(w.out_height, tile.rows), cut.rounded(w.out_width, tile.columns))
    definition = conv2d.define(w, isa, extent)
    return definition, register_tile.convolution(_module(definition), tile, weights)


def _product(workload: MatMul, isa: str) -> tuple[Definition, Any]:
    w, like = workload, matmul.convolution(workload, isa)
    weights, shape = layout.weight_layout(like, isa), layout.weight_shape(like, isa)
    parts = shape[1] * shape[4]
    if weights.group == 16:
        best = cut.of_product(w, parts)
        definition = fragments.matmul_fragments(w, isa, cut.rounded(w.rows, best.columns))
        return definition, tensor_core.matrix(_module(definition), w, best)
    tile = register_tile.of_product(w, parts, weights.group)
    definition = matmul.define(w, isa, cut.rounded(w.rows, tile.columns))
    return definition, register_tile.matrix(_module(definition), w, tile, weights)


def _widest(workload: Workload) -> int:
    """Elements that a thread moves at a time; TVM has no vector of more than four indices, for elements that lie apart."""
    if not isinstance(workload, ChangeLayout):
        return 4
    w = workload
    if w.dtype not in ("uint8", "int8", "int32", "float32"):
        return 1
    in_blocks = w.from_block % 16 == 0 and w.to_block % 16 == 0 and w.from_block and w.to_block
    return 16 if in_blocks and w.dtype in ("uint8", "int8") else 4


def _module(definition: Definition) -> Any:
    import tvm
    from tvm import te

    return tvm.IRModule({"main": te.create_prim_func(list(definition.arguments))})
