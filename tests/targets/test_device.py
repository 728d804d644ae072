"""Bundles for another machine: run under qemu with the bits of this one, refused where they do not fit or were changed."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from emulated import TARGETS, device_files, needs_qemu
from models import samples
from refusals import refusal

from deburr.compare import compare
from deburr.ir.onnx_reader import read
from deburr.targets import compile as compiling
from deburr.targets.bundle import Bundle
from deburr.targets.device import runtime_libraries
from deburr.targets.device.program import DeviceProgram, find_device
from deburr.targets.device.qemu import Qemu
from deburr.targets.target import find

FASHION_MNIST = Path(__file__).parent.parent.parent / "examples" / "fashion_mnist"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, model):
    """For a CPU with sdot, two samples at a time or four."""
    device_files()
    path = tmp_path_factory.mktemp("bundles") / "pi"
    compiling.compile(read(model), path, target=TARGETS["dotprod"], batch=(2, 4), threads=2)
    return path


@pytest.fixture
def copied(bundle, tmp_path):
    return shutil.copytree(bundle, tmp_path / "copy")


def test_a_bundle_holds_what_a_device_needs(bundle):
    manifest = Bundle.inspect(bundle).manifest
    assert set(manifest["files"]) == {
        "README.md", "bundle.txt", "include/bundle.hpp", "include/deburr.hpp", "include/dlpack/dlpack.h", "include/serve.hpp",
        "include/session.hpp", "include/sha256.hpp", "include/tvm/ffi/c_api.h", "libtvm_ffi.so", "libtvm_runtime.so",
        "model.so", "run", "run.cpp",
    }  # fmt: skip
    assert sum(file["bytes"] for name, file in manifest["files"].items() if name != "model.so") < 10_000_000
    assert manifest["remarks"] == ["the numbers were not checked: this CPU cannot run the program, and no --device was named"]


def test_it_runs_elsewhere_only(bundle):
    assert refusal(Bundle.open, bundle) == (
        f"error[E503]: the bundle is for another machine, {bundle}: it is for aarch64, this machine is x86_64; "
        "--target host, or --device qemu"
    )


def test_the_same_bits_as_here(bundle, model, tmp_path):
    needs_qemu()
    data = samples(model, 7)  # 4, 2, and one that is filled up
    expected = compiling.compile(read(model), tmp_path / "here", target=find("host"), threads=1).run(data)["y"]
    given, times = DeviceProgram(bundle, Qemu("cortex-a76")).measure(data, calls=2)
    np.testing.assert_array_equal(given["y"], expected)
    assert len(times) == 2
    assert min(times) > 0


def test_a_cpu_that_lacks_something(bundle, model):
    needs_qemu()
    assert refusal(DeviceProgram(bundle, Qemu("cortex-a53")).run, samples(model, 2)) == (
        f"error[E503]: the bundle is for another machine, {bundle}: this CPU lacks asimddp, asimdhp, atomics, lrcpc, asimdrdm"
    )


@pytest.mark.parametrize("name", ["model.so", "libtvm_runtime.so"])
def test_a_changed_file_is_refused_on_both_sides(copied, model, name):
    """By Python, and by the runner alone: on the device there may be nothing else."""
    needs_qemu()
    content = bytearray((copied / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copied / name).write_bytes(content)
    assert refusal(DeviceProgram, copied, Qemu()).startswith("error[E502]: a file of the bundle is damaged, ")
    array = samples(model, 2)["x"]
    assert refusal(Qemu().run, copied, [array]) == (
        f"error[E502]: a file of the bundle is damaged, {copied}/{name}: its contents are not what bundle.txt says"
    )


def test_wrong_inputs_are_refused_by_the_runner(bundle, model):
    needs_qemu()
    array = samples(model, 2)["x"]
    assert "error[E303]: wrong shape or type, input x" in refusal(Qemu().run, bundle, [array[:, :, 1:]])
    assert refusal(Qemu().run, bundle, [array[:0]]) == "error[E303]: no samples, input x"


def test_the_runner_does_not_divide_what_is_not_divisible(copied, model):
    needs_qemu()
    description = copied / "bundle.txt"
    description.write_text(description.read_text().replace("divisible 1", "divisible 0"))
    assert len(Qemu().run(copied, [samples(model, 4)["x"]])[0][0]) == 4
    assert refusal(Qemu().run, copied, [samples(model, 3)["x"]]) == (
        "error[E303]: the samples cannot be run in parts, 3 samples: not every input and output has them on its first axis, "
        "and the bundle takes 2 or 4 at once"
    )


def test_a_bundle_without_a_runner(bundle, model, tmp_path):
    path = tmp_path / "bare"
    compiling.compile(read(model), path, target=TARGETS["dotprod"], runtime=False)
    assert sorted(file.name for file in path.iterdir()) == ["manifest.json", "model.so"]
    assert refusal(DeviceProgram(path, Qemu()).run, samples(model, 1)).startswith("error[E501]: the bundle brings no runner, ")


def test_no_emulator(bundle, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert refusal(Qemu().run, bundle, []) == (
        "error[E405]: aarch64 cannot be emulated, --device qemu: there is no qemu-aarch64-static; "
        "apt-get install qemu-user-static libstdc++6-arm64-cross"
    )


def test_an_emulated_cpu_that_qemu_does_not_have(bundle, model):
    needs_qemu()
    message = refusal(DeviceProgram(bundle, Qemu("cortex-a67")).run, samples(model, 2))
    assert message.startswith("error[E901]: no emulated CPU 'cortex-a67', --device qemu:cortex-a67: there are a64fx, ")
    assert message.endswith("; did you mean cortex-a76 or cortex-a72?")


def test_compared_there_with_the_model_here(bundle, model, tmp_path):
    needs_qemu()
    onnx.save(model, tmp_path / "m.onnx")
    (found,) = compare(tmp_path / "m.onnx", bundle, samples(model, 4), device="qemu").outputs
    assert found.sqnr_db > 30


def test_no_network(monkeypatch, tmp_path):
    monkeypatch.setattr(runtime_libraries, "_cache", lambda: tmp_path)
    failed = subprocess.CompletedProcess([], 1, "", "ERROR: No matching distribution found\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    message = refusal(runtime_libraries.find, find("raspberry-pi/5"))
    assert message.startswith("error[E405]: no runtime for aarch64, apache-tvm==")
    assert message.endswith(
        "ERROR: No matching distribution found; the network is needed once; --no-runtime leaves the runtime out of the bundle"
    )
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_device():
    assert refusal(find_device, "jtag") == (
        "error[E901]: no device 'jtag', --device: there are qemu, qemu:CPU, ssh://[user@]host[:port], "
        "rpc://host:port, rpc://tracker:port/key, adb, adb:SERIAL; --device qemu"
    )
    assert find_device("qemu:cortex-a53") == Qemu("cortex-a53")


def test_the_headers_compile_in_an_application(bundle, tmp_path):
    """With this machine's own compiler: what is tested is that nothing beyond the bundle's include/ is asked for."""
    (tmp_path / "application.cpp").write_text('#include "deburr.hpp"\nint main() { deburr::Program program("x"); }\n')
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", f"-I{bundle}/include"]
    subprocess.run(["c++", *flags, tmp_path / "application.cpp"], check=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("isa", "cpus"),
    [("neon", ["cortex-a53", "neoverse-n1"]), ("dotprod", ["cortex-a76", "neoverse-n1", "max"]), ("i8mm", ["max"])],
)
def test_fashion_mnist_from_the_shell(tmp_path, isa, cpus):
    """The demo's int8 model, from optimize to the emulated device, against the bundle of this machine."""
    needs_qemu()
    device_files()
    names = {"neon": "raspberry-pi/3b", "dotprod": "raspberry-pi/5", "i8mm": "aws/graviton3"}
    with np.load(FASHION_MNIST / "evaluation.npz") as evaluation:
        np.savez(tmp_path / "x.npz", image=evaluation["image"][:16])
    commands = [
        f"optimize {FASHION_MNIST}/model.onnx -o small.onnx -p int8 --data {FASHION_MNIST}/calibration.npz",
        "compile small.onnx -o here --target host",
        f"compile small.onnx -o there --target {names[isa]}",
        "run here --input x.npz -o here.npz",
        *(f"run there --input x.npz -o there-{cpu}.npz --device qemu:{cpu} --threads 2" for cpu in cpus),
    ]
    for command in commands:
        done = subprocess.run(
            [sys.executable, "-m", "deburr", *command.split()], cwd=tmp_path, check=False, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
    expected = np.load(tmp_path / "here.npz")["logits"]
    for cpu in cpus:
        np.testing.assert_array_equal(np.load(tmp_path / f"there-{cpu}.npz")["logits"], expected, err_msg=cpu)
