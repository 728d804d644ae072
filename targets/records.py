"""The log of record: every measurement of the tuner as one line that checks itself, appended and never rewritten.

A line is ``{"checksum": ..., "record": {...}}``. What a crash, a full disk or an editor tore fails its checksum and is passed
over; so are records of other targets and other versions, which stay in the file. Writers append under a lock, each record in
one write, so two of them can share a file.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deburr.ir.errors import DeburrError

if TYPE_CHECKING:
    from deburr.targets.target import Target

FILE = "records.jsonl"
TRIAL, CHOICE, SESSION = "trial", "choice", "session"


@dataclass(frozen=True, slots=True)
class Setting:
    """What a measurement holds for: the device, its threads, and the versions that generated the code."""

    target: str
    threads: int
    version: str

    @classmethod
    def of(cls, target: Target, threads: int) -> Setting:
        """The setting of this installation. A target is what code is generated from, so its name does not count."""
        facts = {"tvm": dict(target.tvm), "isa": target.isa, "block": target.block, "cores": target.cores}
        return cls(json.dumps(facts, sort_keys=True), threads, version())


@cache
def version() -> str:
    """TVM's, and a digest of the templates' sources: a schedule found for one template means nothing to another."""
    from importlib.metadata import version as installed

    digest, here = hashlib.sha256(), Path(__file__).parent
    for path in sorted([*(here / "kernels").glob("*.py"), *(here / "schedules").glob("*.py")]):
        digest.update(path.name.encode() + path.read_bytes())
    return f"tvm {installed('apache-tvm')}, templates {digest.hexdigest()[:12]}"


def default_path() -> Path:
    """The file that tuning writes to unless told otherwise, in the user's cache folder."""
    import platformdirs

    return platformdirs.user_cache_path("deburr") / FILE


class Records:
    """The log at `path`, seen through one `setting`; the file appears with the first record."""

    def __init__(self, path: str | Path, setting: Setting) -> None:
        self.path, self.setting = Path(path), setting
        self._own = asdict(setting)

    def load(self) -> list[dict[str, Any]]:
        """The records of this setting in the order of the file, without the fields of the setting.

        :raises DeburrError: E101 where the file is there and cannot be read.
        """
        return [
            {key: value for key, value in record.items() if key not in self._own}
            for record in read(self.path)
            if self._own.items() <= record.items()
        ]

    def append(self, record: dict[str, Any]) -> None:
        """Write one record, in one piece.

        :raises DeburrError: E109 where the file cannot be written.
        """
        line = _line({**record, **self._own})
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                _write_whole(descriptor, _mend(descriptor) + line)
            finally:
                os.close(descriptor)  # gives up the lock
        except OSError as error:
            why = error.strerror or str(error)
            raise DeburrError(
                "E109", "cannot write the records", where=str(self.path), why=why, hint="name another file"
            ) from error


def read(path: Path) -> Iterator[dict[str, Any]]:
    """Every record that is whole, of whatever setting; nothing where there is no file.

    :raises DeburrError: E101.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return
    except OSError as error:
        why = error.strerror or str(error)
        raise DeburrError("E101", "cannot read the records", where=str(path), why=why, hint="name another file") from error
    for line in content.split(b"\n"):
        record = _record(line)
        if record is not None:
            yield record


def _line(record: dict[str, Any]) -> bytes:
    return json.dumps({"checksum": _checksum(record), "record": record}).encode() + b"\n"


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        given = json.loads(line)
        record = given["record"]
        return record if isinstance(record, dict) and given["checksum"] == _checksum(record) else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _checksum(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16]


def _mend(descriptor: int) -> bytes:
    """What has to stand before the next line: a line break, where the last writer died in the middle of one."""
    size = os.fstat(descriptor).st_size
    return b"\n" if size and os.pread(descriptor, 1, size - 1) != b"\n" else b""


def _write_whole(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
