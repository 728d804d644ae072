"""Presets: devices as a few lines of TOML, ours and the user's."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import pydantic

from deburr.ir.errors import DeburrError
from deburr.targets import isa as isas
from deburr.targets import llvm

USER_FILE = "targets.toml"  # in the user's configuration folder (~/.config/deburr on Linux)


class Preset(pydantic.BaseModel):
    """One table of a file of presets.

    :param mcpu: the CPU, as LLVM calls it; `mattr` adds and takes away features ("+dotprod", "-aes").
    :param isa: the family of schedules; None: the best that the CPU's features allow.
    :param mtriple: LLVM's triple; None: Linux with glibc, on the architecture of the CPU.
    :param cores: those that share the work.
    :param glibc: the oldest C library that the bundle is to run with; None: `DEFAULT_GLIBC` of linking.
    :param gpu: architectures of NVIDIA GPUs that the kernels are made for, as "sm_80"; `mcpu` is then what launches them.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True)

    mcpu: str
    mattr: list[str] = []
    isa: str | None = None
    mtriple: str | None = None
    cores: int = pydantic.Field(default=4, ge=1)
    glibc: str | None = pydantic.Field(default=None, pattern=r"^2\.\d+$")
    about: str = ""
    gpu: list[Annotated[str, pydantic.Field(pattern=r"^sm_\d+$")]] = []

    def completed(self, where: str) -> Preset:
        """The preset with `isa` and `mtriple` filled in and every name checked against LLVM's table. Loads TVM.

        :raises DeburrError: E401 with the nearest names.
        """
        triple = self.mtriple or self._triple(where)
        llvm.check(triple, self.mcpu, self.mattr, where)
        if self.gpu:
            return self.model_copy(update={"mtriple": triple, "isa": self._isa_of_gpu(where)})
        have = llvm.features({"kind": "llvm", "mtriple": triple, "mcpu": self.mcpu, "mattr": self.mattr})
        architecture = isas.architecture_of(triple)
        best = isas.best(have, architecture)
        if best is None:
            known = ", ".join(isas.TRIPLES)
            raise DeburrError("E401", f"no schedules for {architecture}", where=where, why=f"there are some for {known}")
        lacking = [] if self.isa is None else [need for need in isas.ISAS[self.isa].needs if need not in have]
        if lacking:
            raise DeburrError(
                "E401", f"{self.mcpu} cannot run isa {self.isa!r}", where=where, why=f"it lacks {', '.join(lacking)}",
                hint=f"write isa = {best!r}, or leave it out",
            )  # fmt: skip
        return self.model_copy(update={"mtriple": triple, "isa": self.isa or best})

    def _isa_of_gpu(self, where: str) -> str:
        best = isas.best_of_gpus(map(capability, self.gpu))
        if best is None:
            least = min(isa.capability for isa in isas.ISAS.values() if isa.architecture == isas.GPU)
            raise DeburrError(
                "E401", f"no schedules for {min(self.gpu, key=capability)}", where=where,
                why="CUDA 12 makes no code for it", hint=f"sm_{least} is the oldest",
            )  # fmt: skip
        if self.isa is not None and isas.ISAS[self.isa].capability > min(map(capability, self.gpu)):
            raise DeburrError(
                "E401", f"{min(self.gpu, key=capability)} cannot run isa {self.isa!r}", where=where,
                hint=f"write isa = {best!r}, or leave it out",
            )  # fmt: skip
        return best if self.isa is None else self.isa

    def _triple(self, where: str) -> str:
        of_cpu = self.isa is not None and not isas.is_gpu(self.isa)
        architecture = isas.ISAS[self.isa].architecture if of_cpu and self.isa else llvm.architecture_with(self.mcpu)
        if architecture is None:
            known = [cpu for triple in isas.TRIPLES.values() for cpu in llvm.cpus(triple)]
            raise llvm.unknown_cpu(self.mcpu, known, where)
        return isas.TRIPLES[architecture]


def capability(architecture: str) -> int:
    """The compute capability of "sm_80", as 80."""
    return int(architecture.removeprefix("sm_"))


@lru_cache(maxsize=1)
def built_in() -> Mapping[str, Preset]:
    """The presets of presets.toml by name. They name their isa, so that nothing has to be asked of LLVM."""
    return read(Path(__file__).with_name("presets.toml"))


def users() -> Mapping[str, Preset]:
    """The user's own presets by name; none where there is no file.

    :raises DeburrError: E101, E401 where the file is broken.
    """
    path = user_file()
    return read(path) if path.exists() else {}


def user_file() -> Path:
    """Where the user's own presets are looked for."""
    import platformdirs

    return platformdirs.user_config_path("deburr") / USER_FILE


def read(path: Path) -> Mapping[str, Preset]:
    """The presets of a file, a table each.

    :raises DeburrError: E101 where it is no TOML file, E401 where a table is no preset.
    """
    return {name: _preset(entry, f"{path}, [{name}]") for name, entry in _load(path).items()}


def _preset(entry: Any, where: str) -> Preset:
    try:
        preset = Preset.model_validate(entry)
    except pydantic.ValidationError as error:
        fault = error.errors()[0]
        why = f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}".removeprefix(": ")
        raise DeburrError(
            "E401", "a broken preset", where=where, why=why, hint=f"its keys are {', '.join(Preset.model_fields)}"
        ) from None
    if preset.isa is not None and preset.isa not in isas.ISAS:
        raise DeburrError(
            "E401", "a broken preset", where=where, why=f"no isa {preset.isa!r}", hint=f"there are {', '.join(isas.ISAS)}"
        )
    if preset.isa is not None and isas.is_gpu(preset.isa) != bool(preset.gpu):
        why = f"isa {preset.isa!r} is {'a' if isas.is_gpu(preset.isa) else 'no'} GPU's"
        raise DeburrError("E401", "a broken preset", where=where, why=why, hint='gpu = ["sm_80"] names the architecture')
    return preset


def _load(path: Path) -> dict[str, Any]:
    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10
        import tomli as tomllib  # type: ignore[no-redef,import-not-found,unused-ignore]
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        why = error.strerror or str(error)
        raise DeburrError("E101", "cannot read the presets", where=str(path), why=why, hint="name another file") from error
    except ValueError as error:  # UnicodeDecodeError and TOMLDecodeError are
        raise DeburrError("E101", "not a TOML file", where=str(path), why=str(error), hint="a table for each device") from error
