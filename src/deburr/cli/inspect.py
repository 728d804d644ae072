"""deburr inspect"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deburr.cli import output
from deburr.cli.options import Json


def inspect(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="The model to look at.")],
    groups: Annotated[
        bool, typer.Option("--groups", help="Channels that can only be removed together, and what is frozen.")
    ] = False,
    cost: Annotated[bool, typer.Option("--cost", help="Multiply-accumulates and parameters per node.")] = False,
    text: Annotated[bool, typer.Option("--text", help="The model as text.")] = False,
    json: Json = None,
) -> None:
    """What is in a model.

    Inputs, outputs, operators and size; its channel groups, its cost, its text.
    """
    from deburr import api
    from deburr import inspect as views

    loaded = api.load(model)
    tables = [views.summary(loaded, model)]
    tables += [views.cost(loaded)] if cost else []
    tables += views.groups(loaded) if groups else []
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
