"""Tensors on the first NVIDIA GPU, through TVM's small runtime alone."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import Any

from deburr.ir.errors import DeburrError

CPU, GPU = 1, 2  # kDLCPU, kDLCUDA


@lru_cache(maxsize=1)
def load(library: Path) -> None:
    """TVM's part for CUDA, and the library of NVIDIA's that it asks for: the system's, or out of the wheel.

    :param library: TVM's.
    :raises DeburrError: E902.
    """
    for folder in getattr(importlib.util.find_spec("nvidia"), "submodule_search_locations", None) or []:
        for found in sorted(Path(folder).glob("cu*/lib/libcudart.so.*")):
            with contextlib.suppress(OSError):
                ctypes.CDLL(str(found), ctypes.RTLD_GLOBAL)
    try:
        ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise DeburrError(
            "E902", "TVM's runtime for CUDA does not load", where=str(library), why=str(error)[:300],
            hint="pip install 'deburr[cuda]', and NVIDIA's driver",
        ) from error  # fmt: skip


def empty(like: Any, device: int) -> Any:
    """A tensor of the shape and type of another, on the CPU or the first GPU."""
    import tvm_ffi

    allocate = tvm_ffi.get_global_func("runtime.TVMTensorAllocWithScope")
    return allocate(like.shape, like.dtype, tvm_ffi.device("cuda" if device == GPU else "cpu", 0), None)


def copy(source: Any, target: Any) -> None:
    """Waits for the GPU where one of them is there."""
    import tvm_ffi

    tvm_ffi.get_global_func("runtime.TVMTensorCopyFromTo")(source, target)
