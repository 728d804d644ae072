"""Every preset: does it compile, link and fit its device, and what was its code executed on?

    python benchmarks/presets.py --json build/presets.json --markdown benchmarks/presets.md

The demo's int8 model is compiled for each. The library is checked as `deburr compile` does (architecture, glibc, needed
libraries; of a GPU the cubins in it). x86-64 runs on this machine where the CPU has the instructions; aarch64 on the narrowest
CPU of qemu's that has them, as the runner of the bundle itself sees it; kernels of a GPU on this machine's where they fit, else
their CUDA C++ in the tests' emulation. What runs is to give the bits of the bundle for this machine.

Android and Apple have no runtime here, so what runs is their code, same CPU and features, linked for Linux.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from figures import table, write_json

import deburr
from deburr.ir.errors import DeburrError
from deburr.ir.model import Model
from deburr.targets.bundle import Bundle
from deburr.targets.compile import compile as compile_for
from deburr.targets.device.program import DeviceProgram
from deburr.targets.device.qemu import Qemu
from deburr.targets.elf import Elf
from deburr.targets.features import architecture_here, missing_here
from deburr.targets.link import check
from deburr.targets.nvidia import cubin, driver
from deburr.targets.presets import built_in
from deburr.targets.programs import lowered_for
from deburr.targets.target import Target, find

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "examples" / "fashion_mnist"
CPUS = ("cortex-a53", "cortex-a72", "cortex-a76", "neoverse-n1", "max")  # from the narrowest
SAMPLES = 4
COLUMNS = {"preset": "", "device": "", "isa": "", "library": "", "ran_on": "", "same_bits": "", "why": "", "seconds": ".0f"}
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Row:
    """One preset. `ran_on` is None where nothing here can execute it, and `why` says so.

    :param seconds: of everything, compilation included.
    :param device: the CPU as LLVM calls it, or the GPU's architectures.
    """

    preset: str
    device: str
    isa: str
    library: str
    ran_on: str | None = None
    same_bits: bool | None = None
    why: str = ""
    seconds: float = 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", action="append", choices=list(built_in()), help="these only")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path, help="the table as a page")
    options = parser.parse_args()
    with np.load(FOLDER / "calibration.npz") as data:
        inputs = {"image": data["image"][:SAMPLES]}
    model = deburr.optimize(FOLDER / "model.onnx", "int8", data=FOLDER / "calibration.npz", seed=0)
    with tempfile.TemporaryDirectory(prefix="deburr-presets-") as name:
        folder = Path(name)
        expected = compile_for(model, folder / "host", target=find("host"), threads=1).run(inputs)
        rows = []
        for preset in options.preset or built_in():
            rows.append(measure(model, find(preset), folder, inputs, expected))
            print(rows[-1], flush=True)
    print(page(rows))
    if options.json:
        write_json(options.json, [asdict(row) for row in rows])
    if options.markdown:
        options.markdown.write_text(f"# Every preset\n\nMade by `benchmarks/presets.py`, which says how.\n\n{page(rows)}\n")
    raise SystemExit(any(row.same_bits is False for row in rows))


def page(rows: list[Row]) -> str:
    """The table, and what it comes to."""
    shown = [{**asdict(row), "same_bits": {True: "yes", False: "NO", None: "-"}[row.same_bits]} for row in rows]
    ran = [row for row in rows if row.ran_on]
    same = sum(row.same_bits is True for row in ran)
    count = {name: sum(str(row.ran_on).startswith(name) for row in ran) for name in ("this machine", "qemu", "emulated CUDA")}
    where = ", ".join(f"{number} on {name}" for name, number in count.items())
    return (
        f"{table(COLUMNS, shown)}\n\n{len(rows)} presets compile, link and fit. {len(ran)} were executed, {same} of those with "
        f"the bits of this machine's: {where}. It took {sum(row.seconds for row in rows) / 60:.0f} minutes."
    )


def measure(model: Model, target: Target, folder: Path, inputs: Arrays, expected: Arrays) -> Row:
    """Compile, check, and run where that is possible.

    :raises DeburrError: where the library does not fit the device, or what compiles it is missing.
    """
    start = time.perf_counter()
    row = (_of_gpu if target.gpu else _of_cpu)(model, target, folder, inputs, expected)
    return replace(row, seconds=time.perf_counter() - start)


def _of_cpu(model: Model, target: Target, folder: Path, inputs: Arrays, expected: Arrays) -> Row:
    path = folder / target.name.replace("/", "-")
    linux = replace(target, tvm={**target.tvm, "mtriple": f"{target.architecture}-linux-gnu"})
    is_android = target.triple.endswith("-android")
    compile_for(model, path, target=linux if is_android else target, threads=1, check=False, runtime=False)
    (library,) = path.glob("model.*")
    check(library, linux if is_android else target)
    row = Row(target.name, str(target.tvm["mcpu"]), target.isa, _describe(library, is_android))
    if target.architecture == architecture_here():
        return _natively(row, path, target, inputs, expected)
    if library.suffix != ".so" or is_android:
        path = path.with_name(f"{path.name}-linux")
    compile_for(model, path, target=replace(linux, glibc="2.31"), threads=1, check=False)
    return _emulated(row, path, inputs, expected)


def _of_gpu(model: Model, target: Target, folder: Path, inputs: Arrays, expected: Arrays) -> Row:
    path = folder / target.name.replace("/", "-")
    compile_for(model, path, target=target, threads=1, check=False)
    check(path / "model.so", target)
    cubin.check(path / "model.so", target.gpu)
    library = f"{_describe(path / 'model.so', False)}, cubins {' '.join(cubin.contained(path / 'model.so'))}"
    row = Row(target.name, " ".join(target.gpu), target.isa, library)
    here = driver.architecture()
    if here is not None and driver.fits(here, target.gpu) and target.architecture == architecture_here():
        return _natively(row, path, target, inputs, expected)
    sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "targets")]
    import cuda_emulation  # what the tests execute kernels with

    # The kernels alone are emulated: this machine launches them.
    launched = replace(target, tvm={**target.tvm, "host": find("nvidia/any").tvm["host"]})
    (program,) = lowered_for(model, launched).each
    parts = [
        cuda_emulation.run_model(program.lowered, {name: array[index : index + 1] for name, array in inputs.items()}, launched)
        for index in range(len(next(iter(inputs.values()))))
    ]
    outputs = {name: np.concatenate([part[name] for part in parts]) for name in expected}
    return replace(row, ran_on="emulated CUDA", same_bits=_same(outputs, expected))


def _natively(row: Row, path: Path, target: Target, inputs: Arrays, expected: Arrays) -> Row:
    missing = missing_here(target.instruction_sets())
    if missing:
        return replace(row, why=f"this CPU lacks {', '.join(missing)}")
    return replace(row, ran_on="this machine", same_bits=_same(Bundle.open(path, threads=1).run(inputs), expected))


def _emulated(row: Row, path: Path, inputs: Arrays, expected: Arrays) -> Row:
    why = ""
    for cpu in CPUS:
        try:
            outputs = DeviceProgram(path, Qemu(cpu), threads=1).run(inputs)
        except DeburrError as error:
            if error.code == "E405":  # no qemu
                return replace(row, why=str(error))
            if error.code != "E503":
                raise
            why = f"qemu's {cpu} lacks {str(error).rpartition('lacks ')[2]}"
            continue
        return replace(row, ran_on=f"qemu {cpu}", same_bits=_same(outputs, expected))
    return replace(row, why=why)


def _same(given: Arrays, expected: Arrays) -> bool:
    return all(np.array_equal(given[name], expected[name]) for name in expected)


def _describe(library: Path, is_android: bool) -> str:
    if library.suffix == ".a":
        return "archive (Mach-O)"
    found = Elf.read(library)
    suffix = ", not the NDK's" if is_android else ""
    return f"{found.architecture}, glibc {found.glibc or 'none'}{suffix}"


if __name__ == "__main__":
    main()
