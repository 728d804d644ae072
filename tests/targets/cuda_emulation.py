"""Executes kernels for NVIDIA GPUs on this CPU: TVM's CUDA C++ goes through g++ and a header that stands in for CUDA's.

TVM's own host code launches the kernels, so grids, arguments and the order of launches are checked as well. Memory of the "GPU"
is the CPU's: TVM asks a function for each kind of device, and here both get the same answer.
"""

import atexit
import hashlib
import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from deburr.targets import worker
from deburr.targets.emit import emit
from deburr.targets.nvidia import source

HEADER = Path(__file__).with_name("cuda_emulation.hpp")
KERNEL = re.compile(r'^extern "C" __global__ void .*?(\w+)\(([^)]*)\) \{$', re.M)
LAST = []  # modules that were made
FLAGS = ["-std=c++17", "-O1", "-w", "-ffp-contract=off", "-fPIC", "-U_FORTIFY_SOURCE"]
FLAGS += ["-fsanitize=alignment", "-fsanitize-undefined-trap-on-error"]  # a GPU stops at a vector that is not aligned


@cache
def pretend():
    """Make this process take its CPU for a GPU."""
    if shutil.which("g++") is None:
        pytest.skip("kernels are not emulated here: there is no g++")
    import tvm
    import tvm_ffi

    here = tvm_ffi.get_global_func("device_api.cpu")()
    tvm_ffi.register_global_func("device_api.cuda", lambda: here, override=True)
    tvm_ffi.register_global_func(
        "ffi.Module.create.cuda", lambda code, *given: _module(bytes(code).decode(), given[1]), override=True
    )
    return tvm


def _module(code, functions):
    """A library with the kernels of `code`, that TVM's host code can call."""
    import tvm_ffi

    tags = {str(name): [str(tag) for tag in one.launch_param_tags] for name, one in functions.items()}
    code = re.sub(r"__shared__ (alignas\(\d+\))", r"\1 __shared__", code)  # the order that g++ wants
    text = "\n".join([f'#include "{HEADER.name}"', source.complete(code), *_entries(code, tags)])
    folder = _folder()
    name = hashlib.sha256(text.encode()).hexdigest()[:16]
    library = folder / f"{name}.so"
    if not library.exists():
        (folder / f"{name}.cpp").write_text(text)
        _compile("-shared", "-o", library, folder / f"{name}.cpp")
    LAST.append(tvm_ffi.load_module(str(library)))
    return LAST[-1]


@cache
def _folder():
    """Where libraries are made; with the header, compiled once for all of them."""
    folder = Path(tempfile.mkdtemp(prefix="deburr-emulation-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name in ("cuda.h", "mma.h", "cuda_fp16.h", "sm_61_intrinsics.h"):  # the header stands in for them
        (folder / name).write_text("")
    shutil.copy(HEADER, folder)
    _compile("-x", "c++-header", "-o", folder / f"{HEADER.name}.gch", folder / HEADER.name)
    return folder


def _compile(*arguments):
    import tvm_ffi

    folder = Path(arguments[-1]).parent
    command = ["g++", *FLAGS, f"-I{folder}", f"-I{Path(tvm_ffi.__file__).parent / 'include'}", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:3000]


def _entries(code, tags):
    """What TVM's host code calls: the arguments, then the launch parameters, in the order of their tags."""
    for name, parameters in KERNEL.findall(code):
        types = [parameter.rsplit(" ", 1)[0].replace("__restrict__", "") for parameter in parameters.split(", ")]
        arguments = ", ".join(
            f"({kind})args[{index}].v_ptr" if "*" in kind else f"({kind})args[{index}].v_int64"
            for index, kind in enumerate(types)
        )
        sizes = {"blockIdx": "grid", "threadIdx": "block"}
        places = [f"{sizes[tag.split('.')[0]]}.{tag[-1]} = args[{len(types) + i}].v_int64;" for i, tag in enumerate(tags[name])]
        yield f"""
extern "C" int __tvm_ffi_{name}(void *, const TVMFFIAny *args, int32_t, TVMFFIAny *) {{
  Index grid{{1, 1, 1}}, block{{1, 1, 1}};
  {" ".join(places)}
  emulation::launch(grid, block, [=] {{ {name}({arguments}); }});
  return 0;
}}"""


def build(function, target):
    """A scheduled function as a library, whose "main" takes arrays of the "GPU"."""
    tvm = pretend()
    with tvm.transform.PassContext(config=source.CONFIG):
        return tvm.compile(tvm.IRModule({"main": function}), tvm.target.Target(dict(target.tvm)))


def run(function, target, arrays, output):
    """What a scheduled function makes of its arguments; `output` is there for what it leaves out."""
    tvm = pretend()
    device = tvm.cuda()
    given = [tvm.runtime.tensor(np.ascontiguousarray(array), device) for array in arrays]
    result = tvm.runtime.tensor(output, device)
    build(function, target)["main"](*given, result)
    return result.numpy()


def run_model(model, inputs, target):
    """Outputs by name of a lowered model: the whole program, with its memory and its launches, as TVM's VM runs it."""
    tvm = pretend()
    from tvm import relax

    device = tvm.cuda()
    machine = relax.VirtualMachine(worker.build_module(emit(model, target), target), device)
    given = [value.name for value in model.graph.inputs if value.constant is None]
    results = machine["main"](*(tvm.runtime.tensor(np.ascontiguousarray(inputs[name]), device) for name in given))
    return {value.name: result.numpy() for value, result in zip(model.graph.outputs, results, strict=True)}
