"""Running aarch64 code in tests: a relax module becomes a bundle's folder, qemu runs it. Skipped aloud where that cannot be."""

import shutil
import tempfile
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import pytest

from deburr.ir.errors import DeburrError
from deburr.targets import link, manifest, worker
from deburr.targets.bundle import LIBRARY
from deburr.targets.device import files
from deburr.targets.device.qemu import INSTALL, Qemu
from deburr.targets.target import find

# What runs each family of schedules and shows nothing that it could do without.
CPUS = {"neon": "cortex-a53", "dotprod": "cortex-a76", "i8mm": "max"}
NAMES = {"neon": "raspberry-pi/4b", "dotprod": "rockchip/rk3588", "i8mm": "qualcomm/x-elite"}
TARGETS = {isa: replace(find(name), glibc="2.31") for isa, name in NAMES.items()}  # one C library: zig makes each on first use


def needs_qemu():
    """Skip the test where aarch64 cannot be emulated."""
    for name in ("libc.so.6", "libstdc++.so.6"):
        if shutil.which("qemu-aarch64-static") is None or not Path(f"/usr/aarch64-linux-gnu/lib/{name}").exists():
            pytest.skip(f"aarch64 is not emulated here: {INSTALL}")


@lru_cache(maxsize=1)
def device_files():
    """What a device needs besides the library, made once: the runner takes a while."""
    folder = Path(tempfile.mkdtemp(prefix="deburr-device-"))
    try:
        files.collect(folder, TARGETS["neon"])
    except DeburrError as error:
        if error.code != "E405":
            raise
        pytest.skip(f"no runtime for aarch64: {error}")  # no network, or no cross compiler
    return folder


def execute(module, target, arrays, *, outputs, threads=1, cpu=None):
    """Outputs of a relax module's "main", run on the narrowest CPU that `target` fits.

    :param outputs: (dtype, shape) of each.
    """
    needs_qemu()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "bundle"
        shutil.copytree(device_files(), folder)
        worker.compile_module(module, target, folder / LIBRARY, link.find(target))
        link.check(folder / LIBRARY, target)
        description = manifest.Manifest(
            format=manifest.FORMAT, versions={}, target={"tvm": dict(target.tvm)}, threads=threads, seed=0,
            pipeline="", instruction_sets=list(target.instruction_sets()), remarks=[],
            outputs=[_tensor(*output) for output in outputs],
            inputs=[_tensor(str(array.dtype), array.shape) for array in arrays],
            programs=[manifest.Program(function="main", batch=1, groups=[])], divisible=False,
            files={LIBRARY: manifest.describe(folder / LIBRARY)},
        )  # fmt: skip
        (folder / files.DESCRIPTION).write_text(files.describe(description))
        return Qemu(cpu or CPUS[target.isa]).run(folder, arrays, threads=threads)[0]


def execute_kernels(entries, target, cpu=None):
    """Outputs of many kernels in one program: starting the emulator costs more than they do.

    :param entries: (kernel, its arguments but the output).
    """
    from tvm import relax

    builder, variables, arrays, calls = relax.BlockBuilder(), [], [], []
    for index, (kernel, given) in enumerate(entries):
        own = [relax.Var(f"x{len(arrays) + i}", relax.TensorType(one.shape, str(one.dtype))) for i, one in enumerate(given)]
        function = kernel.function.with_attrs({"global_symbol": f"kernel{index}", "tirx.is_scheduled": True, "op_pattern": 8})
        calls.append((builder.add_func(function, f"kernel{index}"), own, kernel.arguments[-1]))
        variables += own
        arrays += given
    with builder.function("main", variables):
        with builder.dataflow():
            made = [builder.emit(relax.call_tir(f, own, relax.TensorType(out.shape, out.dtype))) for f, own, out in calls]
            result = builder.emit_output(relax.Tuple(made))
        builder.emit_func_output(result)
    return execute(builder.get(), target, arrays, outputs=[(out.dtype, out.shape) for _, _, out in calls], cpu=cpu)


def _tensor(dtype, shape):
    return manifest.Tensor(name="x", dtype={"float32": "float"}.get(dtype, dtype), shape=list(shape))
