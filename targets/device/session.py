"""A session of TVM's RPC with a device: through a command that speaks it on its streams, or at an address.

Loads TVM, and waits for the other end without a limit: in a process that somebody else can end.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from deburr.ir.errors import DeburrError
from deburr.targets.features import missing

REACH_S = 10.0  # to reach a machine at all
FREE_S = 5.0  # for one of a tracker's boards to become free
# TVM starts a command and tells it, by two arguments more, the numbers of its pipes.
ON_ITS_STREAMS = """import os, sys
*command, given, made = sys.argv[1:]
os.dup2(int(given), 0)
os.dup2(int(made), 1)
os.execvp(command[0], command)"""


@dataclass(frozen=True, slots=True)
class Link:
    """How a session is reached.

    :param command: what speaks RPC on its standard streams; or else a host and a port,
    :param key: and there a tracker that knows boards by this key, rather than a server.
    """

    where: str
    command: tuple[str, ...] = ()
    host: str = ""
    port: int = 0
    key: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Link:
        return cls(**{**fields, "command": tuple(fields["command"])})


def connect(link: Link, architecture: str, instruction_sets: Iterable[str]) -> Any:
    """An `RPCSession` with a device that can run the code.

    :raises DeburrError: E505 it cannot be reached, or no board becomes free; E503 it is another machine.
    """
    try:
        session = _through(link.command) if link.command else _at(link)
    except (OSError, RuntimeError) as error:
        raise DeburrError(
            "E505", "the device cannot be reached", where=link.where, why=last_line(error),
            hint="is `run --serve` there, or TVM's own server?" if link.host else "",
        ) from error  # fmt: skip
    _require(session, link, architecture, instruction_sets)
    return session


def boards(link: Link) -> int:
    """How many machines a tracker knows by the key; 1 where there is no tracker.

    :raises DeburrError: E505 where the tracker cannot be reached, or knows none.
    """
    if not link.key:
        return 1
    try:
        servers = [one["key"].partition(":")[2] for one in _tracker(link).summary()["server_info"]]
    except (OSError, RuntimeError) as error:
        raise DeburrError("E505", "the tracker cannot be reached", where=link.where, why=last_line(error)) from error
    if link.key not in servers:
        known = ", ".join(sorted(set(servers))) or "none"
        raise DeburrError("E505", f"no board {link.key!r}", where=link.where, why=f"the tracker knows {known}")
    return servers.count(link.key)


def last_line(error: BaseException) -> str:
    """The last of an exception's lines, which with TVM's has the reason."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300]


def _through(command: Iterable[str]) -> Any:
    from tvm.rpc import _ffi_api
    from tvm.rpc.client import RPCSession

    return RPCSession(_ffi_api.CreatePipeClient(sys.executable, "-c", ON_ITS_STREAMS, *command))


def _at(link: Link) -> Any:
    from tvm import rpc

    if link.key:
        boards(link)  # a request for a key that nobody has would wait for ever
        return _tracker(link).request(link.key, max_retry=1)
    _reach(link)
    return rpc.connect(link.host, link.port)


def _tracker(link: Link) -> Any:
    from tvm import rpc

    _reach(link)  # TVM would try for a minute
    found = rpc.connect_tracker(link.host, link.port)
    found._sock.settimeout(FREE_S)
    return found


def _reach(link: Link) -> None:
    socket.create_connection((link.host, link.port), REACH_S).close()


def _require(session: Any, link: Link, architecture: str, instruction_sets: Iterable[str]) -> None:
    """TVM's own servers do not say what they run on: there the loader has to see to it."""
    try:
        told = str(session.get_function("deburr.rpc.machine")())
    except AttributeError:
        return
    facts = {key: rest.split() for key, _, rest in (line.partition(" ") for line in told.splitlines())}
    lacking = missing(instruction_sets, facts["features"])
    why = (
        f"it is for {architecture}, {link.where} is {facts['architecture'][0]}"
        if facts["architecture"] != [architecture]
        else ""
    )
    if why or lacking:
        raise DeburrError(
            "E503", "the code is for another machine", where=link.where, why=why or f"its CPU lacks {', '.join(lacking)}",
            hint="compile it with the device as --target",
        )  # fmt: skip
