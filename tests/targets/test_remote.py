"""Bundles on another machine through ssh: a real sshd on loopback, and links that break."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from boards import first_kernel, small_disk
from loopback import Proxy, sshd
from models import samples
from refusals import refusal

from deburr.targets import compile as compiling
from deburr.targets.device import remote
from deburr.targets.device.program import DeviceProgram, find_device
from deburr.targets.device.remote import Remote
from deburr.targets.device.session import Link
from deburr.targets.device.ssh import CLIENT, Ssh
from deburr.targets.target import find
from deburr.targets.tuning import measuring
from deburr.targets.tuning.measuring import WorkerMeasure
from deburr.targets.tuning.protocol import OK


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Where the device keeps what it is given; its name asks for quotes."""
    return tmp_path_factory.mktemp("the device's $cache")


@pytest.fixture(scope="module")
def server(tmp_path_factory, cache):
    with sshd(tmp_path_factory.mktemp("sshd"), {"XDG_CACHE_HOME": cache}) as found:
        yield found


@pytest.fixture
def proxy(server, cache, monkeypatch):
    monkeypatch.setenv(CLIENT, server[1])
    monkeypatch.setattr(remote, "DELAYS_S", (0.01, 0.01, 0.1))
    shutil.rmtree(cache / "deburr", ignore_errors=True)
    made = Proxy(server[0])
    yield made
    made.close()


@pytest.fixture
def device(proxy):
    return find_device(f"ssh://127.0.0.1:{proxy.port}")


def test_the_same_bits_and_nothing_is_left_but_the_bundle(bundle, model, device, proxy, cache):
    data = samples(model, 3)
    expected = compiling.Bundle.open(bundle).run(data)["y"]
    given, times = DeviceProgram(bundle, device).measure(data, calls=4)
    np.testing.assert_array_equal(given["y"], expected)
    assert len(times) == 4
    assert [path.name for path in (cache / "deburr" / "runs").iterdir()] == []
    assert len(list((cache / "deburr" / "bundles").iterdir())) == 1
    before = proxy.count
    DeviceProgram(bundle, device).run(data)
    assert proxy.count - before < before  # the bundle was there


def test_wherever_the_link_breaks_the_result_is_the_same(bundle, model, device, proxy, cache):
    data = samples(model, 2)
    expected = compiling.Bundle.open(bundle).run(data)["y"]
    device.run(bundle, [data["x"]])
    steps = proxy.count
    for step in range(1, steps):  # but for the first, which is not repeated
        shutil.rmtree(cache / "deburr")
        before, proxy.broken = proxy.count, {proxy.count + step: 3000}  # the keys are exchanged, then it breaks
        (given,), times = device.run(bundle, [data["x"]])
        np.testing.assert_array_equal(given, expected)
        assert len(times) == 1
        assert proxy.count > before + steps
        assert not list((cache / "deburr" / "runs").iterdir())


def test_a_link_that_stays_broken_and_a_result_that_waits(bundle, model, device, proxy, cache):
    data = samples(model, 2)
    device.run(bundle, [data["x"]])
    started = 4 + 1  # greet, bundle there, inputs there, inputs, start
    proxy.broken = {proxy.count + started + extra: 0 for extra in range(10)}
    message = refusal(device.run, bundle, [data["x"]], calls=7)
    assert message.startswith(f"error[E505]: the device was lost, ssh://127.0.0.1:{proxy.port}: ")
    assert message.endswith("; what runs there goes on: the same command again brings its results")
    (work,) = (cache / "deburr" / "runs").iterdir()
    times = [float(line) for line in _waited(work / "times", 7)]
    proxy.broken = {}
    assert device.run(bundle, [data["x"]], calls=7)[1] == times  # of the run before: nothing ran again


def _waited(path, lines):
    import time

    for _ in range(200):
        if (path.parent / "status").exists():
            return path.read_text().split()
        time.sleep(0.05)
    raise AssertionError(f"{path} never had {lines} lines")


def test_what_the_device_says(bundle, model, device, cache, tmp_path):
    data = samples(model, 2)
    assert "error[E303]: wrong shape or type, input x" in refusal(device.run, bundle, [data["x"][:, :, 1:]])
    device.run(bundle, [data["x"]])
    (kept,) = (cache / "deburr" / "bundles").iterdir()
    content = bytearray((kept / "model.so").read_bytes())
    content[len(content) // 2] ^= 1
    (kept / "model.so").write_bytes(content)
    assert refusal(device.run, bundle, [data["x"]]) == (
        f"error[E502]: a file of the bundle is damaged, {kept}/model.so: its contents are not what bundle.txt says"
    )


def test_a_device_of_another_architecture(bundle, model, device, cache, tmp_path):
    copied = shutil.copytree(bundle, tmp_path / "copy")
    manifest = copied / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"mtriple": "x86_64-linux-gnu"', '"mtriple": "aarch64-linux-gnu"'))
    assert refusal(device.run, copied, [samples(model, 2)["x"]]) == (
        f"error[E503]: the bundle is for another machine, {copied}: it is for aarch64, {device.shell} is x86_64; "
        "compile it with the device as --target"
    )
    assert not (cache / "deburr").exists()


def test_a_full_disk(bundle, model, server, device, monkeypatch, tmp_path):
    """tar's own words; nothing is left of what did not fit."""
    with small_disk(tmp_path / "small", "1m") as small:
        monkeypatch.setattr(Remote, "_greet", lambda *_: str(small))
        message = refusal(device.run, bundle, [samples(model, 2)["x"]])
        assert message.startswith(f"error[E505]: the device failed, {device.shell}: tar: ")
        assert "No space left on device" in message
        assert list((small / "bundles").iterdir()) == []


def test_a_machine_that_is_not_there(bundle, model, monkeypatch):
    monkeypatch.delenv(CLIENT, raising=False)
    if shutil.which("ssh") is None:
        pytest.skip("no ssh client here: apt-get install openssh-client")
    assert refusal(Remote(Ssh("127.0.0.1", 1)).run, bundle, [samples(model, 2)["x"]]) == (
        "error[E505]: the device cannot be reached, ssh://127.0.0.1:1: "
        "ssh: connect to host 127.0.0.1 port 1: Connection refused"
    )


@pytest.mark.parametrize("address", ["", "-oProxyCommand=x", "a b", "host:port", "user@-oX", "a/b"])
def test_an_address_that_is_none(address):
    assert refusal(find_device, f"ssh://{address}") == (
        f"error[E901]: no machine {address!r}, --device: it is not [user@]host[:port]; ssh://pi@board.local"
    )


def test_addresses():
    assert Ssh.parse("pi@board.local:2222") == Ssh("pi@board.local", 2222)
    assert Ssh.parse("[fe80::1]:22") == Ssh("fe80::1", 22)
    assert Ssh.parse("board") == Ssh("board")


def test_no_client(bundle, model, monkeypatch):
    monkeypatch.setenv(CLIENT, "no-such-ssh")
    assert refusal(Remote(Ssh("board")).run, bundle, [samples(model, 2)["x"]]) == (
        "error[E405]: no ssh client, --device: there is no no-such-ssh; apt-get install openssh-client"
    )


def test_kernels_timed_through_the_shell(model, device, cache, tmp_path):
    """Over its own streams: the server opens no port."""
    target = find("host")
    text, work = first_kernel(model, target, tmp_path / "r")
    (link,) = device.links(target)
    assert [path.name for path in (cache / "deburr").iterdir()] == ["runtimes"]
    with WorkerMeasure(target, 1, link=link) as measure:
        (good,) = measure.measure(text, [work.space.default], 3)
    assert (good.status, len(good.ratios)) == (OK, 3)


def test_a_machine_that_went_away_says_nothing_of_the_candidate(model, device, monkeypatch, tmp_path):
    monkeypatch.setattr(measuring, "DELAYS_S", (0.01, 0.01))
    target = find("host")
    text, work = first_kernel(model, target, tmp_path / "r")
    link = Link("ssh://127.0.0.1:1", tuple(Ssh("127.0.0.1", 1).command("./run --serve-stdio")))
    with WorkerMeasure(target, 1, link=link) as measure:
        message = refusal(measure.measure, text, [work.space.default], 3)
    assert message.startswith("error[E505]: the device cannot be reached, ssh://127.0.0.1:1: ")
    assert message.endswith("; the same command goes on from what was found")


def test_from_the_shell(bundle, model, proxy, tmp_path):
    np.savez(tmp_path / "x.npz", **samples(model, 3))
    place = f"ssh://127.0.0.1:{proxy.port}"
    for words in (["run", bundle, "--input", "x.npz", "-o", "y.npz"], ["bench", bundle, "--json", "bench.json"]):
        done = subprocess.run(
            [sys.executable, "-m", "deburr", *words, "--device", place],
            cwd=tmp_path,
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    assert Path(tmp_path / "bench.json").stat().st_size
    expected = compiling.Bundle.open(bundle).run(samples(model, 3))["y"]
    np.testing.assert_array_equal(np.load(tmp_path / "y.npz")["y"], expected)
