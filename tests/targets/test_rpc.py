"""Devices behind TVM's RPC: our server here and on an emulated CPU, TVM's own, a tracker, and links that break."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import psutil
import pytest
from boards import first_kernel, search, small_disk
from emulated import TARGETS, device_files, needs_qemu
from loopback import Proxy
from models import samples
from refusals import refusal

from deburr.ir.errors import DeburrError
from deburr.ir.onnx_reader import read
from deburr.targets import compile as compiling
from deburr.targets.device import rpc
from deburr.targets.device.program import DeviceProgram, find_device
from deburr.targets.device.qemu import Qemu
from deburr.targets.device.session import boards
from deburr.targets.records import Records, Setting
from deburr.targets.target import find
from deburr.targets.tuning.measuring import WorkerMeasure
from deburr.targets.tuning.protocol import OK, REFUSED, Fleet

HOST = find("host")


@pytest.fixture
def sessions(tmp_path, monkeypatch):
    """Where servers keep what they are sent."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return lambda: [path.name for path in tmp_path.iterdir() if path.name.startswith("deburr-session")]


@contextlib.contextmanager
def served(command, *options):
    """A server's port."""
    process = subprocess.Popen([*command, "--serve", "0", *options], stdout=subprocess.PIPE, text=True)
    try:
        yield int(process.stdout.readline().rpartition(":")[2])
    finally:
        _end(process)


def _end(process):
    for one in [*psutil.Process(process.pid).children(recursive=True), process]:
        with contextlib.suppress(psutil.NoSuchProcess):  # a session that just ended
            one.kill()
    process.wait()


@pytest.fixture
def server(bundle, sessions):
    with served([bundle / "run"]) as port:
        yield port


@contextlib.contextmanager
def emulated_server(cpu, *options):
    needs_qemu()
    with served([*Qemu(cpu)._emulator(), str(device_files() / "run")], *options) as port:
        yield port


@contextlib.contextmanager
def tracker():
    pytest.importorskip("tornado", reason="TVM's tracker needs it: pip install tornado")
    with tvms_own("tracker", "Tracker") as port:
        yield port


@contextlib.contextmanager
def tvms_own(module, name):
    """The port of something that TVM brings."""
    pytest.importorskip("cloudpickle", reason="TVM's servers need it: pip install cloudpickle")
    start = f"it = {name}('127.0.0.1', 9090, 9190, silent=True)"
    code = f"from tvm.rpc.{module} import {name}\n{start}\nprint(it.port, flush=True)\ninput()"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield int(process.stdout.readline())
    finally:
        _end(process)


def expected(bundle, data):
    return compiling.Bundle.open(bundle).run(data)["y"]


def test_the_same_bits_from_a_server_on_an_emulated_cpu(bundle, model, tmp_path):
    compiling.compile(read(model), tmp_path / "there", target=TARGETS["dotprod"], batch=(2, 4), threads=2, check=False)
    data = samples(model, 7)  # 4, 2, and one that is filled up
    with emulated_server("cortex-a76") as port:
        device = find_device(f"rpc://127.0.0.1:{port}")
        given, times = DeviceProgram(tmp_path / "there", device).measure(data, calls=3)
    np.testing.assert_array_equal(given["y"], expected(bundle, data))
    assert len(times) == 3
    assert min(times) > 0


def test_a_server_of_tvms_own(bundle, model):
    data = samples(model, 3)
    with tvms_own("server", "Server") as port:
        program = DeviceProgram(bundle, find_device(f"rpc://127.0.0.1:{port}"), threads=1)
        np.testing.assert_array_equal(program.run(data)["y"], expected(bundle, data))


def test_it_listens_on_loopback_alone_and_keeps_nothing(bundle, model, server, sessions):
    listening = [one for one in psutil.net_connections("tcp") if one.status == "LISTEN" and one.laddr.port == server]
    assert [one.laddr.ip for one in listening] == ["127.0.0.1"]
    DeviceProgram(bundle, find_device(f"rpc://127.0.0.1:{server}")).run(samples(model, 2))
    _await(lambda: not sessions())


def test_a_session_that_is_killed_leaves_nothing_and_the_server_goes_on(bundle, model, server, sessions):
    import socket

    (parent,) = [one for one in psutil.Process().children() if one.name() == "run"]
    client = socket.create_connection(("127.0.0.1", server))
    _await(parent.children)
    parent.children()[0].kill()
    _await(lambda: not sessions())
    client.close()
    data = samples(model, 2)
    given = DeviceProgram(bundle, find_device(f"rpc://127.0.0.1:{server}")).run(data)["y"]
    np.testing.assert_array_equal(given, expected(bundle, data))


def _await(condition):
    for _ in range(200):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError


def test_a_server_of_another_architecture_and_one_that_lacks_something(bundle, model, server, tmp_path):
    compiling.compile(read(model), tmp_path / "there", target=TARGETS["dotprod"], batch=2, check=False)
    data = [samples(model, 2)["x"]]
    device = find_device(f"rpc://127.0.0.1:{server}")
    assert refusal(device.run, tmp_path / "there", data) == (
        f"error[E503]: the code is for another machine, rpc://127.0.0.1:{server}: it is for aarch64, "
        f"rpc://127.0.0.1:{server} is x86_64; compile it with the device as --target"
    )
    with emulated_server("cortex-a53") as port:
        message = refusal(find_device(f"rpc://127.0.0.1:{port}").run, tmp_path / "there", data)
    assert f"rpc://127.0.0.1:{port}: its CPU lacks dotprod, fullfp16, lse, rcpc, rdm; " in message


def test_a_session_that_breaks_is_begun_anew(bundle, model, server, monkeypatch):
    """In the middle of the library's way there; the first connection only asks whether anybody is there."""
    monkeypatch.setattr(rpc, "DELAYS_S", (0.01, 0.01))
    data = samples(model, 2)
    proxy = Proxy(server)
    proxy.broken = {1: 100_000}
    device = find_device(f"rpc://127.0.0.1:{proxy.port}")
    np.testing.assert_array_equal(DeviceProgram(bundle, device).run(data)["y"], expected(bundle, data))
    assert proxy.count == 4
    proxy.broken = dict.fromkeys(range(5, 20, 2), 100_000)
    message = refusal(DeviceProgram(bundle, device).run, data)
    assert message.startswith(f"error[E505]: the device was lost, rpc://127.0.0.1:{proxy.port}: ")
    assert proxy.count == 4 + 2 * 3
    proxy.close()


def test_a_tampered_library_never_leaves(bundle, model, server, tmp_path):
    copied = shutil.copytree(bundle, tmp_path / "copy")
    content = bytearray((copied / "model.so").read_bytes())
    content[len(content) // 2] ^= 1
    (copied / "model.so").write_bytes(content)
    device = find_device(f"rpc://127.0.0.1:{server}")
    assert refusal(device.run, copied, [samples(model, 2)["x"]]).startswith("error[E502]: a file of the bundle is damaged, ")


def test_a_full_disk_there(bundle, model, tmp_path, monkeypatch):
    with small_disk(tmp_path / "small", "32k") as small:
        monkeypatch.setenv("TMPDIR", str(small))
        with served([bundle / "run"]) as port:
            monkeypatch.delenv("TMPDIR")
            message = refusal(find_device(f"rpc://127.0.0.1:{port}").run, bundle, [samples(model, 2)["x"]])
        assert message.startswith(f"error[E109]: the device cannot write {small}/deburr-session-")
        assert message.endswith(f"/model.so: No space left on device, rpc://127.0.0.1:{port}")


def test_nobody_is_there(bundle, model):
    message = refusal(find_device("rpc://127.0.0.1:1").run, bundle, [samples(model, 2)["x"]])
    assert message == (
        "error[E505]: the device cannot be reached, rpc://127.0.0.1:1: [Errno 111] Connection refused; "
        "is `run --serve` there, or TVM's own server?"
    )


@pytest.mark.parametrize("address", ["", "board", "board:port", "a b:9090", "board:9090/a key"])
def test_an_address_that_is_none(address):
    assert refusal(find_device, f"rpc://{address}") == (
        f"error[E901]: no server {address!r}, --device: it is not host:port, or a tracker's host:port/key; rpc://127.0.0.1:9090"
    )


def test_the_server_refuses_what_it_does_not_understand(bundle):
    def said(*words):
        return subprocess.run([bundle / "run", *words], check=False, capture_output=True, text=True).stderr.strip()

    assert said("--serve", "x") == "error[E901]: no address 'x': it is not HOST:PORT"
    assert said("--serve", "0", "--tracker", "127.0.0.1:1") == "error[E901]: a tracker wants a key: --key KEY"
    assert said("--serve", "0", "--key", 'a"b') == 'error[E901]: a key is letters, digits, - _ and .: a"b'
    assert said("--serve").startswith("usage: run BUNDLE INPUTS OUTPUTS")


def test_kernels_timed_on_an_emulated_cpu(model, tmp_path):
    """The numbers are checked there, and what does not build is refused."""
    target = TARGETS["dotprod"]
    text, work = first_kernel(model, target, tmp_path / "r")
    odd = replace(work.space.default, oc_tile=7)
    with emulated_server("cortex-a76") as port:
        (link,) = find_device(f"rpc://127.0.0.1:{port}").links(target)
        with WorkerMeasure(target, 1, link=link) as measure:
            good, refused = measure.measure(text, [work.space.default, odd], 3)
    assert (good.status, len(good.ratios)) == (OK, 3)
    assert (refused.status, "do not divide" in refused.why) == (REFUSED, True)


def _boards(device):
    with contextlib.suppress(DeburrError):  # until the first has told the tracker
        return boards(device.link)


def test_a_tracker_gives_all_its_boards_and_a_lost_one_costs_nothing(bundle, model, tmp_path, sessions):
    device_run = [bundle / "run"]
    with tracker() as port, contextlib.ExitStack() as stack:
        options = ("--tracker", f"127.0.0.1:{port}", "--key", "lab")
        first = stack.enter_context(contextlib.ExitStack())
        first.enter_context(served(device_run, *options))
        stack.enter_context(served(device_run, *options))
        device = find_device(f"rpc://127.0.0.1:{port}/lab")
        _await(lambda: _boards(device) == 2)
        data = samples(model, 2)
        np.testing.assert_array_equal(DeviceProgram(bundle, device).run(data)["y"], expected(bundle, data))
        tuner = search(model, HOST, tmp_path / "r.jsonl")
        with contextlib.ExitStack() as measures:
            links = device.links(HOST)
            fleet = Fleet([measures.enter_context(WorkerMeasure(HOST, 1, link=link)) for link in links])
            tuner.search(fleet, 1e9, trials=4)
            first.close()
            tuner.search(fleet, 1e9, trials=4)
        assert sum(len(work.tried) for work in tuner.works.values()) == 8
        records = Records(tmp_path / "r.jsonl", Setting.of(HOST, 1)).load()
        assert {record["status"] for record in records if record["kind"] == "trial"} <= {OK, REFUSED}
        assert refusal(find_device(f"rpc://127.0.0.1:{port}/attic").run, bundle, [data["x"]]) == (
            f"error[E505]: no board 'attic', rpc://127.0.0.1:{port}/attic: the tracker knows lab"
        )


def test_compiled_tuned_and_checked_through_a_server(bundle, model, server, tmp_path):
    address = f"rpc://127.0.0.1:{server}"
    made = compiling.compile(
        read(model), tmp_path / "b", target=HOST, threads=1, tune=4, records=tmp_path / "r.jsonl", device=address
    )
    assert made.manifest["remarks"] == []
    data = samples(model, 1)
    np.testing.assert_array_equal(made.run(data)["y"], expected(bundle, data))
    assert any(record["kind"] == "trial" for record in Records(tmp_path / "r.jsonl", Setting.of(HOST, 1)).load())


def test_checked_on_the_emulator_and_not_tuned_there(model, tmp_path):
    needs_qemu()
    device_files()
    made = compiling.compile(read(model), tmp_path / "b", target=TARGETS["dotprod"], device="qemu:cortex-a76")
    assert made.manifest["remarks"] == []
    options = {"target": TARGETS["dotprod"], "device": "qemu", "tune": 5, "records": tmp_path / "r"}
    assert refusal(compiling.compile, read(model), tmp_path / "c", **options) == (
        "error[E901]: an emulator times nothing, --tune, --device qemu: it takes longest for what a CPU does at once; "
        "tune on the device: ssh:// or rpc://"
    )
    assert sorted(os.listdir(tmp_path)) == ["b"]


def test_from_the_shell(bundle, model, server, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "deburr", "bench", bundle, "--device", f"rpc://127.0.0.1:{server}", "--batch", "2"],
        cwd=tmp_path, check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"deburr on rpc://127.0.0.1:{server}" in done.stdout
