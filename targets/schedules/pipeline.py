"""TVM's way from TIR to machine code, with one change: what a schedule calls local lies on the stack.

TVM asks its runtime for the memory of every buffer of scope "local", be it four bytes or a register tile, and LLVM cannot know
that nothing else reads it: sums then live in registers only where no other access to memory stands among them. A slot on the
stack LLVM takes apart for good.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    Module = Any  # tvm.IRModule
    Statement = Any  # tvm.tirx.Stmt

_ON_STACK = "disable_lower_builtin"  # TVM's word for: leave this allocation to the code generator
LARGEST = 8192  # bytes: a register tile and the tiles of a transformation are far below
_NAME = "deburr"
# VectorCombine makes one vector of two neighbours, for registers that are not there, and takes the order of a register tile's
# instructions apart: operands then go to the stack.
_IN_ORDER = ("-disable-vector-combine:bool=1",)
# So does the scheduler where it brings loads together that could be one instruction: with the 24 sums of a tile of sdot beside
# them. Without sdot more registers are free, and cores in order gain by fewer instructions.
_LOADS_APART = ("-misched-cluster:bool=0",)


def library(function: Any, target: Any) -> Any:
    """A scheduled function as a loaded library, its "main".

    :param target: a `Target` of ours.
    """
    import tvm

    return tvm.compile(tvm.IRModule({"main": function}), device(target), tir_pipeline=name())


def device(target: Any) -> Any:
    """TVM's target for a `Target` of ours, with LLVM told what spoils our kernels."""
    import tvm

    if target.gpu or target.architecture != "aarch64":
        return tvm.target.Target(dict(target.tvm))
    options = [*_IN_ORDER, *(() if target.isa == "neon" else _LOADS_APART)]
    return tvm.target.Target({**target.tvm, "cl-opt": options})


def name() -> str:
    """What TVM's build functions take as `tir_pipeline`."""
    from tvm.tirx import compilation_pipeline

    if _NAME not in compilation_pipeline.PIPELINE_MAP:
        compilation_pipeline.register_tir_pipeline(_NAME, _stages)
    return _NAME


def _stages() -> tuple[Any, Any, Any]:
    """Lowering, then what finishes the host's functions and the device's."""
    import tvm
    from tvm.s_tir.pipeline import default_s_tir_pipeline

    lowering, finish_host, finish_device = default_s_tir_pipeline()

    @tvm.transform.module_pass(opt_level=0, name="deburr.locals_on_stack")  # type: ignore[untyped-decorator]
    def locals_on_stack(module: Module, _: Any) -> Module:
        from tvm import tirx

        changed = module.clone()
        for handle, function in module.functions.items():
            if isinstance(function, tirx.PrimFunc):
                changed.update_func(handle, function.with_body(_on_stack(function.body)))
        return changed

    return lowering, lambda: tvm.transform.Sequential([locals_on_stack, finish_host()]), finish_device


def _on_stack(statement: Statement) -> Statement:
    """The statement with every small local allocation marked; itself where there is none."""
    from tvm import tirx

    match statement:
        case tirx.AllocBuffer():
            small = _is_small_local(statement.buffer)
            return tirx.AllocBuffer(statement.buffer, {_ON_STACK: tirx.IntImm("bool", 1)}) if small else statement
        case tirx.SeqStmt():
            parts = [_on_stack(part) for part in statement.seq]
            same = all(new.same_as(old) for new, old in zip(parts, statement.seq, strict=True))
            return statement if same else tirx.SeqStmt(parts)
        case tirx.For():
            body = _on_stack(statement.body)
            return statement if body.same_as(statement.body) else tirx.For(
                statement.loop_var, statement.min, statement.extent, statement.kind, body, statement.thread_binding,
                statement.annotations,
            )  # fmt: skip
        case tirx.AttrStmt():
            body = _on_stack(statement.body)
            same = body.same_as(statement.body)
            return statement if same else tirx.AttrStmt(statement.node, statement.attr_key, statement.value, body)
        case tirx.IfThenElse():
            yes, no = _on_stack(statement.then_case), statement.else_case and _on_stack(statement.else_case)
            return tirx.IfThenElse(statement.condition, yes, no)
    return statement


def _is_small_local(buffer: Any) -> bool:
    import tvm_ffi
    from tvm import tirx

    kind = tvm_ffi.dtype(str(buffer.dtype))  # maybe a vector
    size = -(-kind.bits * kind.lanes // 8)
    for extent in buffer.shape:
        if not isinstance(extent, tirx.IntImm):
            return False
        size *= int(extent)
    return buffer.scope() == "local" and size <= LARGEST
