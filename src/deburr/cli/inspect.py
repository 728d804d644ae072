"""deburr inspect"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deburr.cli import output
from deburr.cli.options import Json

if TYPE_CHECKING:
    from deburr.inspect import Table


def inspect(
    *,
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx|BUNDLE", help="What to look at.")],
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
    """What is in a model, or in a bundle.

    Inputs, outputs, operators and size; a model's channel groups, its cost, its weights, its text.
    """
    if model.is_dir():
        from deburr.inspect_bundle import views as bundle_views

        _check_bundle(model, json, groups or cost or sparsity or text or picture is not None)
        _show(bundle_views(model), json)
        return
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
    _show(tables, json, views.text(loaded) if text else "")


def _show(tables: list[Table], json: Path | None, text: str = "") -> None:
    if not output.quiet(json):
        for number, one in enumerate(tables):
            output.put(("\n" if number else "") + one.title)
            if one.rows:
                output.table(one.columns, one.rows, left=one.left)
            else:
                output.put("none")
        if text:
            output.put("\n" + text)
    output.write_json({one.title: one.to_json() for one in tables} | ({"text": text} if text else {}), json)


def _check_bundle(bundle: Path, json: Path | None, asks_for_the_model: bool) -> None:
    """:raises DeburrError: E901 for what only a model has, E109 where the JSON cannot be written."""
    from deburr.ir.errors import DeburrError

    if asks_for_the_model:
        raise DeburrError(
            "E901", "a bundle holds no ONNX model", where=str(bundle), why="its channels, weights and nodes are compiled away",
            hint="inspect the ONNX file, or leave the option out",
        )  # fmt: skip
    output.require_writable(json)


def _check(picture: Path | None, groups: bool, json: Path | None) -> None:
    """:raises DeburrError: E901 for a picture of nothing, E109 where a file cannot be written."""
    from deburr.ir.errors import DeburrError

    if picture is not None and not groups:
        raise DeburrError("E901", "a picture of what", where="--picture", hint="give --groups with it")
    output.require_writable(picture, json)
