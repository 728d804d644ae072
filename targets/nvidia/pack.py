"""Machine code for GPUs into a library: on a machine without one TVM would leave CUDA C++ in it, compiled on each start.

A library holds its imported modules as bytes: the length of all, then for each its kind and its own bytes, lengths first. Those
of a CUDA module are the kind of its code, a table of its functions, and the code.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deburr.targets.nvidia import compiler

_KIND = b"cuda"


class Packer:
    """What TVM's export calls to pack the modules that a library imports.

    :param gpu: the architectures to compile for.
    :raises DeburrError: E403, E405 of the compiler.
    """

    def __init__(self, gpu: tuple[str, ...]) -> None:
        self.gpu = gpu

    def __call__(self, module: Any, is_system_library: bool, prefix: str, folder: str) -> str:
        import tvm_ffi

        packed = tvm_ffi.get_global_func("runtime.ModulePackImportsToTensor")(module)
        blob = packed.numpy().tobytes() if hasattr(packed, "numpy") else bytes(packed)
        for code in sources(module):
            blob = replace(blob, code, self._compiled(code, Path(folder)))
        triple = str(_host(module)["_get_target_string"]())
        made = tvm_ffi.get_global_func("codegen.codegen_blob")(blob, is_system_library, triple, prefix)
        path = Path(folder) / "devc.o"
        made.write_to_file(str(path))
        return str(path)

    def _compiled(self, code: str, folder: Path) -> bytes:
        return compiler.bind({one: compiler.cubin(code, one, folder)[0] for one in self.gpu}, folder)


def sources(module: Any) -> list[str]:
    """The CUDA C++ of all modules that one imports, straight or not."""
    found = [str(module.inspect_source())] if module.kind == _KIND.decode() else []
    return found + [code for imported in module.imports for code in sources(imported)]


def replace(blob: bytes, code: str, compiled: bytes) -> bytes:
    """A library's bytes with a module's machine code in place of its C++.

    :raises ValueError: where they are not as TVM writes them.
    """
    text = code.encode()
    module = _sized(_KIND) + b"%b" + _sized(_KIND)  # the module's kind, the length of its bytes, the kind of its code
    head, _, tail = module.partition(b"%b")
    for start in _places(blob, head):
        at = start + len(head)
        (length,) = struct.unpack_from("<Q", blob, at)
        body = blob[at + 8 : at + 8 + length]
        if body.startswith(tail) and body.endswith(_sized(text)):
            table = body[len(tail) : len(body) - len(_sized(text))]
            fresh = _sized(b"cubin") + table + _sized(compiled)
            whole = blob[8:at] + _sized(fresh) + blob[at + 8 + length :]
            return struct.pack("<Q", len(whole)) + whole
    raise ValueError("no such module among the imports of the library")


def _sized(content: bytes) -> bytes:
    return struct.pack("<Q", len(content)) + content


def _places(blob: bytes, what: bytes) -> Iterator[int]:
    start = blob.find(what)
    while start >= 0:
        yield start
        start = blob.find(what, start + 1)


def _host(module: Any) -> Any:
    """The module of host code."""
    if module.kind == "llvm":
        return module
    found = [one for imported in module.imports if (one := _host(imported)) is not None]
    return found[0] if found else None
