"""A schedule for any function that came without one: parallel outside, vectors inside, reductions kept inside."""

from __future__ import annotations

from typing import Any

WORTH_A_THREAD = 16_384  # elements; waking the pool takes as long as a few thousand of them
LANES = 16  # elements of an inner loop that becomes vectors


def schedule_module(module: Any, *, gpu: bool = False) -> Any:
    """Schedule every TIR function of an IRModule that does not say it is scheduled; what resists stays as it is, and right.

    :param gpu: whether loops are bound to a GPU's threads. TVM then has a last schedule for what resists.
    """
    from tvm import tirx

    updated = module.clone() if hasattr(module, "clone") else module
    for handle, function in list(module.functions.items()):
        if isinstance(function, tirx.PrimFunc) and not int((function.attrs or {}).get("tirx.is_scheduled", 0)):
            updated.update_func(handle, schedule(function, gpu=gpu))
    return updated


def schedule(function: Any, *, gpu: bool = False) -> Any:
    """The function with elementwise stages inlined and every remaining stage parallel and vectorized, where TVM allows it."""
    import tvm
    from tvm.s_tir import Schedule

    try:
        plan = Schedule(tvm.IRModule({"main": function}), error_render_level="none")
        blocks = list(plan.get_child_blocks(plan.get_sblock("root")))
    except Exception:  # not a tree of blocks (sorting, scanning): TVM's schedule stands
        return function
    left = _inlined(plan, blocks)
    if gpu:
        return _for_gpu(function, plan, left)
    for block in left:
        _attempt(plan, block)
    return plan.mod["main"].with_attrs({"tirx.is_scheduled": True})


def _for_gpu(function: Any, plan: Any, blocks: list[Any]) -> Any:
    """All stages bound, or the function as it came: a kernel with one stage that is not bound would be none."""
    from deburr.targets.schedules.cuda import default as cuda

    try:
        cuda.schedule(plan, blocks)
    except (RuntimeError, ValueError):  # TVM objects, or a block's loops are not its axes
        return function
    return plan.mod["main"].with_attrs({"tirx.is_scheduled": True})


def _inlined(plan: Any, blocks: list[Any]) -> list[Any]:
    """Inline what only moves or combines single elements, except outputs; the blocks that are left."""
    left = []
    for block in blocks:
        if not _has_reduction(plan, block):
            try:
                plan.compute_inline(block)
                continue
            except Exception:  # an output, or it does not inline
                left.append(block)
                continue
        left.append(block)
    return left


def _attempt(plan: Any, block: Any) -> None:
    """Schedule one block, unless TVM objects half way: then it stays serial."""
    try:
        loops = plan.get_loops(block)
        kinds = _kinds(plan, block)
        if len(loops) == len(kinds):
            _parallel_and_vectors(plan, block, loops, kinds)
    except Exception:  # tvm's ScheduleError derives from RuntimeError in some paths and from TVMError in others
        return


def _parallel_and_vectors(plan: Any, block: Any, loops: list[Any], kinds: list[bool]) -> None:
    spatial = [loop for loop, reduces in zip(loops, kinds, strict=True) if not reduces]
    reducing = [loop for loop, reduces in zip(loops, kinds, strict=True) if reduces]
    extent = _product(plan, loops)
    if not spatial:
        return
    plan.reorder(*spatial, *reducing)
    fused = plan.fuse(*spatial)
    total = _product(plan, [fused])
    if total % LANES == 0 and total >= LANES:
        outer, inner = plan.split(fused, [None, LANES])
        if reducing:
            plan.reorder(outer, *reducing, inner)
    else:
        outer, inner = fused, None
    if extent >= WORTH_A_THREAD and _product(plan, [outer]) > 1:
        plan.parallel(outer)
    if reducing:
        init = plan.decompose_reduction(block, reducing[0])
        if inner is not None:
            plan.vectorize(plan.get_loops(init)[-1])
    if inner is not None:
        plan.vectorize(inner)


def _kinds(plan: Any, block: Any) -> list[bool]:
    """For each axis of a block, whether it is reduced over."""
    from tvm import tirx

    return [axis.iter_type == tirx.IterVar.CommReduce for axis in plan.get(block).iter_vars]


def _has_reduction(plan: Any, block: Any) -> bool:
    return any(_kinds(plan, block))


def _product(plan: Any, loops: list[Any]) -> int:
    size = 1
    for loop in loops:
        size *= int(plan.get(loop).extent)
    return size
