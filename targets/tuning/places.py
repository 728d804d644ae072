"""Where kernels run while they are timed: in this process, or in a session with a device."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from deburr.ir.types import Array
from deburr.targets import link as linking
from deburr.targets.device.session import Link, connect
from deburr.targets.target import Target

Timer = Callable[[int], float]  # seconds per call over so many, after one that does not count: it fills the caches again


class Gone(Exception):  # noqa: N818 - takes the worker with it
    """The session broke, and whether the kernel did it is unknown."""


class Place(Protocol):
    def run(self, library: Any, inputs: Sequence[Array], output: Array) -> tuple[Timer, Array]:
        """How long the kernel "main" of a compiled module takes, and what it leaves in `output`."""
        ...


class Here:
    """This process."""

    def run(self, library: Any, inputs: Sequence[Array], output: Array) -> tuple[Timer, Array]:
        import tvm

        function = library["main"]
        tensors = [tvm.runtime.tensor(array) for array in (*inputs, output)]

        def timer(count: int) -> float:
            function(*tensors)
            start = time.perf_counter()
            for _ in range(count):
                function(*tensors)
            return (time.perf_counter() - start) / count

        function(*tensors)
        return timer, tensors[-1].numpy().copy()


class There:
    """A device, by its own clock. Libraries are linked here and loaded there.

    :raises DeburrError: E503, E505 as `connect`, E405 where nothing links for the device.
    """

    def __init__(self, target: Target, link: Mapping[str, Any], threads: int) -> None:
        self._linker = linking.find(target)
        self._session = connect(Link.from_json(link), target.architecture, target.instruction_sets())
        self._threads = threads
        self._numbers = itertools.count()

    def run(self, library: Any, inputs: Sequence[Array], output: Array) -> tuple[Timer, Array]:
        """:raises Gone: the session broke."""
        import tvm

        def timer(count: int) -> float:
            return float(_guarded(lambda: module.time_evaluator("main", device, number=count, repeat=1)(*tensors)).results[0])

        module = self._load(library, f"kernel{next(self._numbers)}.so")  # a loader knows libraries by their names
        device = self._session.cpu()
        tensors = _guarded(lambda: [tvm.runtime.tensor(array, device=device) for array in (*inputs, output)])
        _guarded(lambda: module["main"](*tensors))
        return timer, _guarded(tensors[-1].numpy)

    def _load(self, library: Any, name: str) -> Any:
        with tempfile.TemporaryDirectory(prefix="deburr-kernel-") as folder:
            path = Path(folder) / name
            library.export_library(str(path), fcompile=linking.Linker(self._linker))
            _guarded(lambda: self._session.upload(str(path), name))
        module = _guarded(lambda: self._session.load_module(name))
        _guarded(lambda: module.get_function("deburr_set_threads", query_imports=True)(self._threads))
        _guarded(lambda: self._session.get_function("tvm.rpc.server.remove")(name))  # what is loaded needs no name
        return module


def _guarded(step: Callable[[], Any]) -> Any:
    """What a step in a session gives; an error of the other end is an `RPCError`, one of the way there `Gone`."""
    from tvm.error import RPCError

    try:
        return step()
    except RPCError:
        raise
    except RuntimeError as error:
        raise Gone(str(error)) from error
