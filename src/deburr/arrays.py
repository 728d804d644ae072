"""Arrays by name into .npz files; `deburr.ir.samples` reads them."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from deburr.ir.types import Array

_NO_TIME = (1980, 1, 1, 0, 0, 0)  # the same arrays give the same bytes


def write_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """What `numpy.savez` writes, without its limits: any name, exactly this path, the same bytes each time."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy", _NO_TIME), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
