"""What tests of devices do alike, whatever leads to the device."""

import contextlib
import subprocess

import pytest
from program import lowered

from deburr.targets import tune
from deburr.targets.records import Records, Setting
from deburr.targets.tuning.tuner import Tuner


def search(model, target, path):
    """A search for the kernels of a model, with its records in a file."""
    _, lower, _ = lowered(model, target.name)
    return Tuner(tune.workloads([lower]), target, Records(path, Setting.of(target, 1)))


def first_kernel(model, target, path):
    """The text of one, and the work on it."""
    return next(iter(search(model, target, path).works.items()))


@contextlib.contextmanager
def small_disk(folder, size):
    """A file system of so many bytes (as "32k") at a folder that is made for it."""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip("no small file system can be mounted here: that takes root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)
