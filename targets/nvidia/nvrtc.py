"""NVIDIA's compilers that are libraries, called as if they were programs; a crash in one is then an exit status.

    python -m deburr.targets.nvidia.nvrtc architectures LIBRARY
    python -m deburr.targets.nvidia.nvrtc cubin|ptx LIBRARY GIVEN.cu MADE OPTION...
    python -m deburr.targets.nvidia.nvrtc bind LIBRARY MADE ARCHITECTURE=CUBIN...

LIBRARY is NVRTC's, which needs no C++ compiler beside it; to bind, it is nvFatbin's. What they tell goes to stderr. NVIDIA's
"NVRTC" and "nvFatbin" describe each function.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def main(what: str, library: str, *rest: str) -> int:
    """The exit status."""
    loaded = ctypes.CDLL(library)
    if what == "architectures":
        sys.stdout.write("".join(f"sm_{number}\n" for number in _architectures(loaded)))
        return 0
    if what == "bind":
        return _bind(loaded, Path(rest[0]), rest[1:])
    given, made, *options = rest
    return _compile(loaded, what, Path(given), Path(made), options)


def _architectures(nvrtc: Any) -> list[int]:
    count = ctypes.c_int()
    if nvrtc.nvrtcGetNumSupportedArchs(ctypes.byref(count)):
        return []
    numbers = (ctypes.c_int * count.value)()
    return [] if nvrtc.nvrtcGetSupportedArchs(numbers) else list(numbers)


def _compile(nvrtc: Any, kind: str, given: Path, made: Path, options: Sequence[str]) -> int:
    program, content = ctypes.c_void_p(), ctypes.c_char_p(given.read_bytes())
    status = nvrtc.nvrtcCreateProgram(ctypes.byref(program), content, given.name.encode(), 0, None, None)
    if not status:
        words = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        status = nvrtc.nvrtcCompileProgram(program, len(options), words)
        sized, get = nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog
        log = _content(lambda size: sized(program, size), lambda to: get(program, to))
        sys.stderr.write(log.rstrip(b"\0").decode(errors="replace"))
    if not status:
        name = {"cubin": "CUBIN", "ptx": "PTX"}[kind]
        sized, get = getattr(nvrtc, f"nvrtcGet{name}Size"), getattr(nvrtc, f"nvrtcGet{name}")
        code = _content(lambda size: sized(program, size), lambda to: get(program, to))
        made.write_bytes(code.rstrip(b"\0") if kind == "ptx" else code)
        return 0
    return _failed(nvrtc.nvrtcGetErrorString, status)


def _bind(fatbin: Any, made: Path, images: Sequence[str]) -> int:
    handle, options = ctypes.c_void_p(), (ctypes.c_char_p * 2)(b"-64", b"-compress=false")
    status = fatbin.nvFatbinCreate(ctypes.byref(handle), options, ctypes.c_size_t(len(options)))
    for image in images:
        architecture, _, path = image.partition("=")
        content, number = Path(path).read_bytes(), architecture.removeprefix("sm_").encode()
        size = ctypes.c_size_t(len(content))
        status = status or fatbin.nvFatbinAddCubin(handle, content, size, number, path.encode())
    if not status:
        made.write_bytes(_content(lambda size: fatbin.nvFatbinSize(handle, size), lambda to: fatbin.nvFatbinGet(handle, to)))
        return 0
    return _failed(fatbin.nvFatbinGetErrorString, status)


def _failed(name_of: Any, status: int) -> int:
    name_of.restype = ctypes.c_char_p
    sys.stderr.write(f"\nerror: {name_of(status).decode()}\n")
    return 1


def _content(size_of: Callable[[Any], int], get: Callable[[Any], int]) -> bytes:
    size = ctypes.c_size_t()
    size_of(ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    get(buffer)
    return buffer.raw


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
