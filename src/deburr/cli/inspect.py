"""deburr inspect"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deburr.cli import output
from deburr.cli.options import Json


def inspect(
    *,
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="The model to look at.")],
    groups: Annotated[
        bool, typer.Option("--groups", help="Channels that can only be removed together, and what is frozen.")
    ] = False,
    cost: Annotated[bool, typer.Option("--cost", help="Multiply-accumulates and parameters per node.")] = False,
    sparsity: Annotated[
        bool, typer.Option("--sparsity", help="Zeros and distinct values per weight, and the bytes of each way to store them.")
    ] = False,
    picture: Annotated[
        Path | None, typer.Option("--picture", metavar="FILE", help="With --groups: draw them as .svg, .png or .pdf.")
    ] = None,
    text: Annotated[bool, typer.Option("--text", help="The model as text.")] = False,
    json: Json = None,
) -> None:
    """What is in a model.

    Inputs, outputs, operators and size; its channel groups, its cost, its weights, its text.
    """
    from deburr import api
    from deburr import inspect as views

    _check(picture, groups, json)
    loaded = api.load(model)
    tables = [views.summary(loaded, model)]
    tables += [views.cost(loaded)] if cost else []
    tables += views.groups(loaded) if groups else []
    if sparsity:
        from deburr.sparsity import sparsity as table

        tables.append(table(loaded))
    if picture is not None:
        from deburr.picture import draw_groups

        draw_groups(loaded, picture)
    if not output.quiet(json):
        for number, one in enumerate(tables):
            output.put(("\n" if number else "") + one.title)
            if one.rows:
                output.table(one.columns, one.rows, left=one.left)
            else:
                output.put("none")
        if text:
            output.put("\n" + views.text(loaded))
    output.write_json({one.title: one.to_json() for one in tables} | ({"text": views.text(loaded)} if text else {}), json)


def _check(picture: Path | None, groups: bool, json: Path | None) -> None:
    """:raises DeburrError: E901 for a picture of nothing, E109 where a file cannot be written."""
    from deburr.ir.errors import DeburrError

    if picture is not None and not groups:
        raise DeburrError("E901", "a picture of what", where="--picture", hint="give --groups with it")
    output.require_writable(picture, json)
