"""deburr targets"""

from __future__ import annotations

from deburr.cli import output
from deburr.cli.options import Json


def targets(json: Json = None) -> None:
    """The devices that code can be made for."""
    from deburr import catalogue

    found = catalogue.targets()
    if not output.quiet(json):
        output.table(
            ["name", "schedules", "CPU", "about"],
            [(one["name"], one["isa"], one["cpu"], one["about"]) for one in found],
            left=4,
        )
    output.write_json(found, json)
