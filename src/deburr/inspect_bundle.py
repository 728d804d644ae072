"""What `deburr inspect` shows of a bundle: what it says of itself, checked but not loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deburr.inspect import Table
from deburr.report import folder_bytes


def views(path: Path) -> list[Table]:
    """The bundle at a glance, and its programs, one for each batch size.

    :raises DeburrError: E501 no bundle, E502 a damaged one.
    """
    from deburr.targets.manifest import read

    manifest = read(path)
    rows: list[tuple[str, Any]] = [
        *(("input", f"{tensor.name}: {tensor.type}") for tensor in manifest.inputs),
        *(("output", f"{tensor.name}: {tensor.type}") for tensor in manifest.outputs),
        ("target", f"{manifest.target.get('name')} ({manifest.target.get('tvm', {}).get('mcpu')})"),
        ("threads", manifest.threads),
        ("samples", "any number, in parts" if manifest.divisible else "as many as a program takes"),
        ("bytes", folder_bytes(path)),
        ("pipeline", manifest.pipeline or "none"),
        ("made with", ", ".join(f"{name} {version}" for name, version in manifest.versions.items())),
        *(("remark", remark) for remark in manifest.remarks),
    ]
    programs = [
        (program.function, program.batch, len(program.groups), sum(group.macs for group in program.groups))
        for program in manifest.programs
    ]
    return [
        Table(str(path), ("what", "found"), rows, left=2),
        Table("programs", ("function", "samples", "kernels", "MACs"), programs),
    ]
