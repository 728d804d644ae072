"""A bundle that runs on another machine, used like one that runs here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from deburr.ir.errors import DeburrError
from deburr.ir.types import Array, TensorType
from deburr.targets.bundle import Bundle
from deburr.targets.device.adb import Adb
from deburr.targets.device.qemu import Qemu
from deburr.targets.device.remote import Remote
from deburr.targets.device.rpc import Rpc
from deburr.targets.device.session import Link
from deburr.targets.device.ssh import Ssh

if TYPE_CHECKING:
    from deburr.targets.target import Target


class Device(Protocol):
    """Something that runs bundles: inputs in, outputs and the milliseconds of each call out."""

    def run(
        self, bundle: Path, arrays: Sequence[Array], *, threads: int | None = None, calls: int = 1
    ) -> tuple[list[Array], list[float]]: ...

    def links(self, target: Target) -> Sequence[Link]:
        """How its boards are reached for tuning, code for `target`; each takes one session at a time."""
        ...


def find_device(text: str) -> Device:
    """The device that ``--device`` names: "qemu", "qemu:CPU" for a narrower one, "ssh://[user@]host[:port]", "rpc://host:port",
    "rpc://tracker:port/key", "adb", "adb:SERIAL".

    :raises DeburrError: E901.
    """
    kind, _, rest = text.partition(":")
    if kind == "qemu":
        return Qemu(rest or "max")
    if kind == "ssh" and rest.startswith("//"):
        return Remote(Ssh.parse(rest[2:]))
    if kind == "rpc" and rest.startswith("//"):
        return Rpc.parse(rest[2:])
    if kind == "adb":
        return Remote(Adb.parse(rest))
    raise DeburrError(
        "E901", f"no device {text!r}", where="--device", hint="--device qemu",
        why="there are qemu, qemu:CPU, ssh://[user@]host[:port], rpc://host:port, rpc://tracker:port/key, adb, adb:SERIAL",
    )  # fmt: skip


class DeviceProgram:
    """A bundle and a device. It satisfies the same protocol as a bundle that is open here."""

    batch = None  # all samples at once: each trip to a device has its price

    def __init__(self, path: str | Path, device: Device, threads: int | None = None) -> None:
        """
        :raises DeburrError: E501 no bundle, E502 a damaged one.
        """
        self.path, self.device, self.threads = Path(path), device, threads
        self._bundle = Bundle.inspect(path)

    @property
    def inputs(self) -> Mapping[str, TensorType]:
        return self._bundle.inputs

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Output name -> array, for any number of samples where the batch is open.

        :raises DeburrError: E302, E303 for inputs that do not fit, and what the device says.
        """
        return self.measure(inputs, calls=1)[0]

    def measure(self, inputs: Mapping[str, Array], calls: int) -> tuple[dict[str, Array], list[float]]:
        """The outputs, and the milliseconds of each of `calls` runs over all samples, divided as `Bundle` does."""
        results, times = self.device.run(self.path, self._bundle.ordered(inputs), threads=self.threads, calls=calls)
        return dict(zip(self._bundle.outputs, results, strict=True)), times
