"""A second model equal to the first: what is tried out on it leaves the first as it is."""

from __future__ import annotations

from deburr.ir.model import Model


def duplicate(model: Model) -> Model:
    """A model of its own, with the same folder for external data."""
    from deburr.ir.onnx_reader import read
    from deburr.ir.onnx_writer import to_proto

    copied = read(to_proto(model))
    copied.folder = model.folder
    return copied
