"""Bundles on an Android device. The `adb` here stands in for the way there alone: what it is sent runs under qemu, in a folder,
with nothing of Linux but the C library that the bundle brings. No Android was at hand."""

import os
import shutil

import numpy as np
import pytest
from emulated import device_files, needs_qemu
from models import samples
from refusals import refusal

from deburr.ir.onnx_reader import read
from deburr.targets import compile as compiling
from deburr.targets.device import files, remote
from deburr.targets.device.adb import CLIENT, Adb
from deburr.targets.device.program import DeviceProgram, find_device
from deburr.targets.device.session import connect
from deburr.targets.target import find

FAKE = r"""#!{python}
import os, pathlib, re, subprocess, sys
counter = pathlib.Path(__file__).with_name("count")
number = int(counter.read_text()) if counter.exists() else 0
counter.write_text(str(number + 1))
words = sys.argv[1:]
serial = words.pop(0) if words[0] == "-s" and words.pop(0) else "R58"
if serial != "R58":
    sys.exit(f"adb: device '{{serial}}' not found")
if str(number) in os.environ.get("BREAKS", "").split():
    sys.stdin.buffer.read(3000)
    sys.exit("error: closed")
assert words[:2] == ["shell", "-T"], words
line = re.sub(r"([^\s']*/ld-linux-aarch64\.so\.1)", r"qemu-aarch64-static -cpu cortex-a76 \1", words[2])
sys.exit(subprocess.run(["sh", "-c", "uname() {{ echo aarch64; }}\n" + line]).returncode)
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, model):
    needs_qemu()
    device_files()
    path = tmp_path_factory.mktemp("bundles") / "phone"
    compiling.compile(read(model), path, target=find("android/pixel-6"), batch=2, threads=2, runtime=True, check=False)
    return path


@pytest.fixture
def phone(tmp_path, monkeypatch):
    """Its folder for executables."""
    import sys

    (tmp_path / "adb").write_text(FAKE.format(python=sys.executable))
    (tmp_path / "adb").chmod(0o755)
    (tmp_path / "data").mkdir()
    monkeypatch.delenv(CLIENT, raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "data"))
    monkeypatch.setattr(remote, "DELAYS_S", (0.01, 0.01))
    return tmp_path / "data"


def test_the_same_bits_as_here(bundle, model, phone, tmp_path):
    data = samples(model, 3)
    expected = compiling.compile(read(model), tmp_path / "here", target=find("host"), threads=1).run(data)["y"]
    given, times = DeviceProgram(bundle, find_device("adb")).measure(data, calls=2)
    np.testing.assert_array_equal(given["y"], expected)
    assert len(times) == 2
    assert not list((phone / "deburr" / "runs").iterdir())


def test_wherever_the_cable_breaks_the_result_is_the_same(bundle, model, phone, tmp_path, monkeypatch):
    data = samples(model, 2)
    expected = DeviceProgram(bundle, find_device("adb:R58")).run(data)["y"]
    steps = int((tmp_path / "count").read_text())
    for step in range(1, steps):
        shutil.rmtree(phone / "deburr")
        before = int((tmp_path / "count").read_text())
        monkeypatch.setenv("BREAKS", str(before + step))
        np.testing.assert_array_equal(DeviceProgram(bundle, find_device("adb")).run(data)["y"], expected)


def test_a_session_over_its_streams(bundle, phone):
    """For tuning."""
    target = files.on_linux(find("android/pixel-6"))
    (link,) = find_device("adb").links(target)
    session = connect(link, target.architecture, target.instruction_sets())
    assert str(session.get_function("deburr.rpc.machine")()).startswith("architecture aarch64\n")


def test_what_is_wrong_is_said(bundle, model, phone, tmp_path, monkeypatch):
    array = samples(model, 2)["x"]
    assert refusal(find_device("adb:other").run, bundle, [array]) == (
        "error[E505]: the device cannot be reached, adb:other: adb: device 'other' not found"
    )
    bare = shutil.copytree(bundle, tmp_path / "bare")
    (bare / "ld-linux-aarch64.so.1").unlink()
    assert refusal(find_device("adb").run, bare, [array]) == (
        f"error[E501]: the bundle brings no C library, {bare}: adb has none that it can use; "
        "compile it with --target android/... --runtime"
    )
    assert refusal(find_device, "adb:-x").startswith("error[E901]: no device '-x', --device adb: ")
    monkeypatch.setenv(CLIENT, "no-such-adb")
    assert refusal(Adb("R58").run, "true") == (
        "error[E405]: no adb, --device adb:R58: there is no no-such-adb; apt-get install adb"
    )
