"""The NVIDIA GPU of this machine, as its driver tells."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from functools import lru_cache

_MAJOR, _MINOR = 75, 76  # attributes of a device: its compute capability


@lru_cache(maxsize=1)
def architecture() -> str | None:
    """ "sm_80" of the first GPU; None where there is none, or no driver for it."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    device, numbers = ctypes.c_int(), (ctypes.c_int(), ctypes.c_int())
    if driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), 0):
        return None
    for number, attribute in zip(numbers, (_MAJOR, _MINOR), strict=True):
        if driver.cuDeviceGetAttribute(ctypes.byref(number), attribute, device):
            return None
    return f"sm_{numbers[0].value}{numbers[1].value}"


def fits(here: str, architectures: Iterable[str]) -> bool:
    """Whether a GPU runs machine code for one of these: that of its own generation, up to its own step in it."""
    major, minor = divmod(int(here.removeprefix("sm_")), 10)
    made_for = (divmod(int(one.removeprefix("sm_")), 10) for one in architectures)
    return any(one[0] == major and one[1] <= minor for one in made_for)
