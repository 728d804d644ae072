"""What a bundle says about itself: manifest.json, checked field by field before anything is loaded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pydantic

from deburr.ir.errors import DeburrError
from deburr.ir.types import DType, TensorType
from deburr.targets.isa import architecture_of

FORMAT = 4
FILE = "manifest.json"
_NUMPY_NAMES = {"float": "float32", "double": "float64"}  # where ONNX and numpy differ


class _Part(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True)


class Tensor(_Part):
    """An input or output: ONNX's element type in lower case, and the size of each axis.

    None is a size that the number of samples decides: on the first axis it is that number.
    """

    name: str
    dtype: str
    shape: list[int | None]

    @property
    def type(self) -> TensorType:
        return TensorType(DType[self.dtype.upper()], tuple("batch" if size is None else size for size in self.shape))

    @property
    def numpy(self) -> np.dtype[np.generic]:
        """The type of an array that holds it (`DType.numpy` would ask ONNX)."""
        return np.dtype(_NUMPY_NAMES.get(self.dtype, self.dtype))

    @property
    def is_open(self) -> bool:
        """Whether it has the samples on its first axis, any number of them."""
        return self.shape[:1] == [None]

    def sizes(self, batch: int) -> tuple[int, ...]:
        """The shape of one run."""
        return tuple(batch if size is None else size for size in self.shape)


class Group(_Part):
    """One call of a fused kernel: the layer it stands for, its operator, its sizes as text, and its multiply-accumulates."""

    layer: str
    operator: str
    shape: str
    dtype: str
    macs: int


class Program(_Part):
    """A function of the library: the samples that one call takes, and the fused kernels that it calls, in order."""

    function: str
    batch: int = pydantic.Field(ge=1)
    groups: list[Group]


class File(_Part):
    """A file of the bundle."""

    sha256: str
    bytes: int


class Manifest(_Part):
    """Everything that `Bundle.open` needs, and where the programs come from.

    :param programs: one for each batch size, in ascending order.
    :param divisible: whether samples may be run in parts: all inputs and outputs have them on the first axis.
    """

    format: int
    versions: dict[str, str]
    target: dict[str, Any]
    instruction_sets: list[str]
    threads: int = pydantic.Field(ge=1)
    seed: int
    pipeline: str
    inputs: list[Tensor]
    outputs: list[Tensor]
    programs: list[Program] = pydantic.Field(min_length=1)
    divisible: bool
    remarks: list[str]
    files: dict[str, File]

    @property
    def architecture(self) -> str:
        """The CPU that the code runs on, as Linux calls it; "" in bundles that do not say."""
        tvm = self.target.get("tvm", {})
        return architecture_of(str(tvm.get("host", tvm).get("mtriple", "")))

    @property
    def gpu(self) -> tuple[str, ...]:
        """The GPU's architectures that there is machine code for; () where the CPU computes."""
        return tuple(map(str, self.target.get("gpu", ())))

    def write(self, folder: Path) -> None:
        text = json.dumps(self.model_dump(mode="json"), indent=1, sort_keys=True)
        (folder / FILE).write_text(text + "\n", encoding="utf-8")


def describe(path: Path) -> File:
    """Hash and size of a file."""
    content = path.read_bytes()
    return File(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))


def read(folder: Path) -> Manifest:
    """The manifest of the bundle in `folder`, its files checked against their hashes.

    :raises DeburrError: E501 no bundle, or one of another format; E502 a file is missing or changed.
    """
    try:
        fields = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        why = f"{FILE}: {getattr(error, 'strerror', None) or error}"
        raise DeburrError(
            "E501", "not a bundle", where=str(folder), why=why, hint="give what `deburr compile` wrote"
        ) from error
    if isinstance(fields, Mapping) and fields.get("format") != FORMAT:
        raise DeburrError(
            "E501", "a bundle of another format", where=str(folder),
            why=f"it has format {fields.get('format')!r}, this version of deburr reads {FORMAT}", hint="compile it again",
        )  # fmt: skip
    try:
        manifest = Manifest.model_validate(fields)
        for tensor in (*manifest.inputs, *manifest.outputs):
            _ = tensor.type, tensor.numpy
    except (pydantic.ValidationError, KeyError, TypeError) as error:
        why = _first_fault(error)
        raise DeburrError("E502", "the manifest is damaged", where=str(folder), why=why, hint="compile it again") from error
    for name, expected in manifest.files.items():
        _check_file(folder, name, expected)
    return manifest


def _check_file(folder: Path, name: str, expected: File) -> None:
    why = "it leads out of the bundle"
    if not Path(name).is_absolute() and ".." not in Path(name).parts:
        try:
            why = "" if describe(folder / name) == expected else "its contents are not what the manifest says"
        except OSError as error:
            why = error.strerror or str(error)
    if why:
        raise DeburrError("E502", "a file of the bundle is damaged", where=str(folder / name), why=why, hint="compile it again")


def _first_fault(error: pydantic.ValidationError | KeyError | TypeError) -> str:
    if not isinstance(error, pydantic.ValidationError):
        return f"there is no element type {error.args[0]}"
    fault = error.errors()[0]
    return f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"
