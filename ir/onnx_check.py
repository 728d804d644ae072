"""What is refused before any pass runs: models that break the ONNX specification."""

from __future__ import annotations

from deburr.ir.errors import DeburrError
from deburr.ir.onnx_load import Loaded


def check(loaded: Loaded) -> None:
    """
    :raises DeburrError: E103 where the model breaks the specification, E105 where it is newer than the installed onnx.
    """
    import onnx

    try:
        onnx.checker.check_model(loaded.proto)
    except onnx.checker.ValidationError as error:
        raise DeburrError("E103", "the model breaks the ONNX specification", where=loaded.name, why=str(error)) from error
