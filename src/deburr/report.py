"""Reports that are files: report.json for machines and report.md for people, both from the same figures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deburr import __version__
from deburr.inspect import Size, Table, size
from deburr.ir.files import write_atomically

if TYPE_CHECKING:
    from deburr.ir.model import Model
    from deburr.ir.samples import Samples
    from deburr.passes.core import Remark
    from deburr.passes.pipeline import Pipeline


@dataclass(frozen=True)
class OptimizeReport:
    """What one `deburr optimize` did."""

    model: str
    output: str
    pipeline: str
    seed: int
    data: str | None
    samples: int
    synthetic: bool
    before: Size
    after: Size
    bytes_before: int
    bytes_after: int
    remarks: tuple[Remark, ...]
    interrupted: str = ""  # the pass that the user ended early

    columns = ("", "before", "after", "before / after")

    @classmethod
    def of(
        cls, *, source: Path, before: Model, out: Path, after: Model, pipeline: Pipeline,
        data: Samples | None, seed: int, remarks: Sequence[Remark],
    ) -> OptimizeReport:  # fmt: skip
        """The figures of two models and their files."""
        return cls(
            model=str(source), output=str(out), pipeline=str(pipeline), seed=seed,
            data=data.source if data else None, samples=len(data) if data else 0, synthetic=bool(data and data.synthetic),
            before=size(before), after=size(after), bytes_before=model_bytes(source), bytes_after=model_bytes(out),
            remarks=tuple(remarks), interrupted=after.metadata.get("deburr.interrupted", ""),
        )  # fmt: skip

    @property
    def warning(self) -> str:
        """What a reader must not overlook."""
        warnings = {
            "calibrated on random data: the accuracy of this model means nothing until it is measured": self.synthetic,
            f"{self.interrupted} was interrupted: the model is what it had reached by then": self.interrupted,
        }
        return "; ".join(text for text, holds in warnings.items() if holds)

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """Parameters, MACs, nodes, bytes: before, after, and how many times smaller."""
        pairs = [
            ("parameters", self.before.parameters, self.after.parameters),
            ("MACs per sample", self.before.macs, self.after.macs),
            ("nodes", self.before.nodes, self.after.nodes),
            ("file bytes", self.bytes_before, self.bytes_after),
        ]
        return [(what, str(old), str(new), f"{old / new:.2f}" if new else "-") for what, old, new in pairs]

    def to_json(self) -> dict[str, Any]:
        return {"deburr": __version__, **asdict(self), "warning": self.warning}

    def to_markdown(self, weights: Table | None = None) -> str:
        data = f"{self.samples} samples of {self.data}" if self.data else "none"
        lines = [
            f"# {self.output}", "", f"`{self.pipeline}` over `{self.model}`, seed {self.seed}. Calibration data: {data}.", "",
            *([f"**Warning: {self.warning}.**", ""] if self.warning else []), *markdown_table(self.columns, self.rows),
        ]  # fmt: skip
        if weights is not None:
            lines += ["", "What each way to store the weights takes:", "", *markdown_table(weights.columns, weights.rows)]
        if self.remarks:
            lines += ["", "Left alone:", "", *(f"- {remark}" for remark in self.remarks)]
        return "\n".join(lines) + "\n"

    def write(self, folder: Path, weights: Table | None = None) -> None:
        """report.json and report.md; the folder is made where there is none.

        :param weights: what each way to store them takes, where passes made them sparse or share values.
        :raises DeburrError: E109.
        """
        make_folder(folder)
        document = self.to_json() | ({"weights": weights.to_json()} if weights is not None else {})
        write_text(folder / "report.json", json.dumps(document, indent=2, ensure_ascii=False) + "\n")
        write_text(folder / "report.md", self.to_markdown(weights))


def markdown_table(columns: Sequence[object], rows: Sequence[Sequence[object]]) -> list[str]:
    """A Markdown table: the first column is text, the others are numbers."""
    rule = [":--", *["--:"] * (len(columns) - 1)]
    return [f"| {' | '.join(str(cell).replace('|', '&#124;') for cell in line)} |" for line in (columns, rule, *rows)]


def write_text(path: Path, text: str) -> None:
    """:raises DeburrError: E109."""
    write_atomically(path, lambda temporary: _write(temporary, text))


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def make_folder(folder: Path) -> None:
    """:raises DeburrError: E109."""
    from deburr.ir.errors import DeburrError

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DeburrError("E109", "cannot make the folder", where=str(folder), why=error.strerror or str(error)) from error


def model_bytes(path: Path) -> int:
    """An ONNX file with its external data, which deburr writes beside it as `NAME.data`."""
    beside = path.with_name(path.name + ".data")
    return path.stat().st_size + (beside.stat().st_size if beside.exists() else 0)


def folder_bytes(path: Path) -> int:
    """All files of a folder."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
