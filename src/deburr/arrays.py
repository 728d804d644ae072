"""Arrays by name in .npz files."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from deburr.ir.errors import DeburrError
from deburr.ir.types import Array

_NO_TIME = (1980, 1, 1, 0, 0, 0)  # the same arrays give the same bytes


def read_arrays(path: str | Path) -> dict[str, Array]:
    """The arrays of an .npz; pickled ones are refused.

    :raises DeburrError: E301.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, AttributeError) as error:
        raise DeburrError(
            "E301", "cannot read the data", where=str(path), why=str(error), hint="give an .npz written by numpy.savez"
        ) from error


def write_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """What `numpy.savez` writes, without its limits: any name, exactly this path, the same bytes each time."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy", _NO_TIME), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
