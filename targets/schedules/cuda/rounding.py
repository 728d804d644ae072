"""Rounding half to even on a GPU: the epilogue asks for LLVM's intrinsic, which CUDA C++ has under another name."""

from __future__ import annotations

from functools import cache
from typing import Any


@cache
def register() -> None:
    """Make CUDA's conversion what TVM lowers ``llvm.lrint`` to in kernels for GPUs."""
    from tvm import tirx

    tirx.register_intrin_lowering("tirx.call_llvm_pure_intrin", target="cuda", f=_lower, level=99)


def _lower(call: Any) -> Any:
    from tvm import tirx
    from tvm.target import codegen

    name, *operands = call.args
    if int(name) != codegen.llvm_lookup_intrinsic_id("llvm.lrint"):
        return None
    return tirx.call_pure_extern(str(call.ty.dtype), "__float2int_rn", *operands)
