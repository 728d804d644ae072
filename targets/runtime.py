"""Running a compiled library: TVM's small runtime alone, without its compiler and without ONNX."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from deburr.ir.errors import DeburrError
from deburr.ir.types import Array
from deburr.targets.nvidia import memory

ALIGNMENT = 64  # bytes: generated code loads whole vectors from the start of every tensor
POOLED = 2  # the VM's pooled allocator
ANY_CORE = 1  # affinity mode of the thread pool (kBig); binding itself is off, see `_load`

_configured = threading.local()  # TVM keeps one thread pool per calling thread


Parameters = Sequence[tuple[tuple[int, ...], np.dtype[Any]]]  # shape and dtype of each


@dataclass(frozen=True, slots=True)
class _Function:
    """A function of the library, and what its inputs are copied to.

    :param given: what it is called with: the tensors themselves, or their likes on the GPU.
    """

    call: Any
    buffers: list[Array]
    tensors: list[Any]
    given: list[Any]


class Program:
    """The functions of a library, with their inputs' buffers. They share the weights.

    :param functions: their parameters by their names.
    :param gpu: whether it computes on the first NVIDIA GPU. Inputs are copied there, and results back.
    :raises DeburrError: E501 where the library is none of ours, E902 where TVM's runtime is missing.
    """

    def __init__(self, library: Path, functions: Mapping[str, Parameters], threads: int, *, gpu: bool = False) -> None:
        import tvm_ffi

        _load()
        if gpu:
            memory.load(library_of_tvm("libtvm_runtime_cuda.so"))
        self.threads, self._gpu = threads, gpu
        try:
            with _under_a_new_name(library) as path:
                module = tvm_ffi.load_module(str(path))
            self._set_threads = module.get_function("deburr_set_threads", query_imports=True)
            self._machine = module["vm_load_executable"]()
            self._machine["vm_initialization"](*([memory.GPU, 0, POOLED] if gpu else []), memory.CPU, 0, POOLED)
            self._functions = {name: self._function(name, parameters) for name, parameters in functions.items()}
        except Exception as error:  # the ffi's own exceptions share no base but this one
            raise DeburrError("E501", "the library does not load", where=str(library), why=_line(error)) from error
        self._lock = threading.Lock()

    def _function(self, name: str, parameters: Parameters) -> _Function:
        import tvm_ffi

        buffers = [_aligned(shape, dtype) for shape, dtype in parameters]
        tensors = [tvm_ffi.from_dlpack(buffer) for buffer in buffers]
        there = [memory.empty(tensor, memory.GPU) for tensor in tensors] if self._gpu else tensors
        return _Function(self._machine[name], buffers, tensors, there)

    def run(self, arrays: Sequence[Array], function: str = "main") -> list[Array]:
        """The outputs, fresh arrays. One call at a time; others wait.

        :raises DeburrError: E504 where the program fails.
        """
        chosen = self._functions[function]
        with self._lock:
            self._set_threads(self.threads)
            for buffer, array in zip(chosen.buffers, arrays, strict=True):
                np.copyto(buffer, array)
            try:
                results = self._call(chosen)
            except Exception as error:  # as above
                raise DeburrError("E504", "the program failed", why=_line(error)) from error
            return [np.array(np.from_dlpack(result)) for result in results]

    def _call(self, function: _Function) -> list[Any]:
        """The results, on the CPU."""
        if not self._gpu:
            return list(function.call(*function.tensors))
        for here, there in zip(function.tensors, function.given, strict=True):
            memory.copy(here, there)
        found = []
        for there in function.call(*function.given):
            here = memory.empty(there, memory.CPU)
            memory.copy(there, here)
            found.append(here)
        return found

    def profile(self, arrays: Sequence[Array], calls: int, function: str = "main") -> list[list[tuple[str, float]]]:
        """Each of `calls` runs as the functions that it called, in order, with the seconds that each took.

        Watching costs a few microseconds a call, which are not in these times.

        :raises DeburrError: E504 where the program fails.
        """
        import tvm_ffi

        events: list[tuple[str, int]] = []
        # The VM calls it before and after each instruction; 0 of the result means: go on.
        watch = tvm_ffi.convert_func(lambda _function, symbol, *_: events.append((symbol, time.perf_counter_ns())))
        self.run(arrays, function)
        self._machine["set_instrument"](watch)
        try:
            runs = []
            for _ in range(calls):
                events.clear()
                self.run(arrays, function)
                pairs = zip(events[::2], events[1::2], strict=True)
                runs.append([(str(symbol), (end - start) / 1e9) for (symbol, start), (_, end) in pairs])
            return runs
        finally:
            self._machine["set_instrument"](tvm_ffi.convert_func(lambda *_: None))


@contextlib.contextmanager
def _under_a_new_name(library: Path) -> Iterator[Path]:
    """The loader knows libraries by their paths: a bundle replaced while the old one is loaded would be the old one."""
    with tempfile.TemporaryDirectory(prefix="deburr-load-") as folder:
        link = Path(folder) / library.name
        link.symlink_to(library.absolute())
        yield link


def set_threads(threads: int) -> None:
    """How many threads TVM's own pool uses from now on, for calls from this thread: of kernels built in this process.

    Libraries have threads of their own (device/parallel.c).
    """
    if getattr(_configured, "threads", None) == threads:
        return
    import tvm_ffi

    tvm_ffi.get_global_func("runtime.config_threadpool")(ANY_CORE, threads)
    _configured.threads = threads


@lru_cache(maxsize=1)
def _load() -> Any:
    """Load TVM's runtime: the library alone, since `import tvm` brings the compiler and takes a second more.

    Its pool would count hyper-threads and take half of the cores; it makes as many workers as there are cores, once, and
    `set_threads` says how many of them work. They are not bound to cores: two programs would fight for the first ones. An idle
    worker spins for about a millisecond, then sleeps; TVM's own hundred milliseconds take a core from whatever runs next.
    """
    os.environ.setdefault("TVM_NUM_THREADS", str(os.cpu_count() or 1))
    os.environ.setdefault("TVM_BIND_THREADS", "0")
    os.environ.setdefault("TVM_THREAD_POOL_SPIN_COUNT", "3000")
    library = library_of_tvm("libtvm_runtime.so")
    try:
        return ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise DeburrError("E902", "TVM's runtime does not load", where=str(library), why=_line(error)) from error


def library_of_tvm(name: str) -> Path:
    """A library of TVM's.

    :raises DeburrError: E902 where TVM is not installed.
    """
    found = importlib.util.find_spec("tvm")
    if found is None or found.origin is None:
        raise DeburrError("E902", "TVM's runtime is missing", hint="pip install apache-tvm")
    return Path(found.origin).parent / "lib" / name


def _aligned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    memory = np.zeros(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    buffer: Array = memory[start : start + size].view(dtype).reshape(shape)
    return buffer


def _line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300]
