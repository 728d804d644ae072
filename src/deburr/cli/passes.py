"""deburr passes"""

from __future__ import annotations

from deburr.cli import output
from deburr.cli.options import Json


def passes(json: Json = None) -> None:
    """Passes with their options, recipes, and broken plugins."""
    from deburr import catalogue

    listed = catalogue.passes()
    recipes, broken = catalogue.recipes(), catalogue.broken()
    if not output.quiet(json):
        for one in listed:
            origin = "" if one.origin == "built in" else f"  [{one.origin}]"
            output.put(f"{one.name}{origin}\n    {one.summary}")
            for option in one.options:
                output.put(f"    {option.name}={option.default}")
        output.put("\nrecipes")
        for name, text in recipes.items():
            output.put(f"{name}\n    {text}")
        for entry in broken:
            output.put(f"\nbroken: {entry.name} from {entry.origin}: {entry.reason}")
    output.write_json(
        {"passes": [one.to_json() for one in listed], "recipes": recipes, "broken": [one.to_json() for one in broken]}, json
    )
