"""deburr doctor"""

from __future__ import annotations

import typer

from deburr.cli import output
from deburr.cli.options import Json


def doctor(json: Json = None) -> None:
    """Check this installation.

    Versions, TVM, C compiler, CPU, threads, extras. Exit status 1 if something needed is missing.
    """
    from deburr.doctor import examine

    findings = examine()
    if not output.quiet(json):
        output.table(["", "what", "found"], [(one.mark, one.what, one.found) for one in findings], left=3)
    output.write_json([one.to_json() for one in findings], json)
    if any(one.is_failure for one in findings):
        raise typer.Exit(1)
