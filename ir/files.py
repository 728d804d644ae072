"""Files that are there whole or not at all: written to a temporary name in the same folder, synced, renamed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from deburr.ir.errors import DeburrError


def write_atomically(path: str | Path, write: Callable[[Path], None], beside: Sequence[str] = ()) -> None:
    """Let `write` fill a temporary file or folder, then give it the name `path`, in place of what stood there.

    :param write: gets a path that does not exist yet, in the folder of `path`, and leaves a file or a folder there.
    :param beside: names of further files that `write` leaves in its folder. They are put in place first, so `path` never stands
        without them.
    :raises DeburrError: E109 where the folder is missing, full or read-only; what stood at `path` is then untouched.
    """
    target = Path(path)
    try:
        room = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise _refusal(target, error) from error
    try:
        fresh = room / target.name
        write(fresh)
        _check_kind(fresh, target)
        for name in (*beside, target.name):
            _sync(room / name)
        for name in (*beside, target.name):
            replace(room / name, target.with_name(name), room)
        _sync_folder(target.parent)
    except OSError as error:
        raise _refusal(target, error) from error
    finally:
        shutil.rmtree(room, ignore_errors=True)


def replace(fresh: Path, target: Path, room: Path) -> None:
    """Rename `fresh` to `target`; a folder that stands there moves to `room` first, since no rename replaces a full folder."""
    _check_kind(fresh, target)
    if not target.is_dir() or target.is_symlink():
        fresh.replace(target)
        return
    old = room / f"{target.name}.old"
    target.rename(old)
    try:
        fresh.rename(target)
    except OSError:
        old.rename(target)
        raise


def _check_kind(fresh: Path, target: Path) -> None:
    stands_as_folder = target.is_dir() and not target.is_symlink()
    if fresh.is_dir() and target.exists() and not stands_as_folder:
        raise FileExistsError(17, "a file stands where a folder should go", str(target))
    if stands_as_folder and not fresh.is_dir():
        raise IsADirectoryError(21, "a folder stands where the file should go", str(target))


def _sync(path: Path) -> None:
    files = [path, *path.rglob("*")] if path.is_dir() else [path]
    for file in files:
        if file.is_symlink():
            continue
        _sync_folder(file)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refusal(target: Path, error: OSError) -> DeburrError:
    why = error.strerror or str(error)
    return DeburrError("E109", "cannot write", where=str(target), why=why, hint="choose a folder that can be written to")
