"""The application: its commands, and how every error becomes one line and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from deburr import __version__
from deburr.cli.bench import bench
from deburr.cli.compare import compare
from deburr.cli.compile import compile_model
from deburr.cli.doctor import doctor
from deburr.cli.inspect import inspect
from deburr.cli.optimize import optimize
from deburr.cli.output import INTERRUPTED
from deburr.cli.passes import passes
from deburr.cli.run import run
from deburr.cli.targets import targets
from deburr.ir.errors import DeburrError

# Plain help: rich's own costs more than the rest of `--help` together.
app = typer.Typer(
    name="deburr", add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, no_args_is_help=True
)

_COMMANDS: dict[str, Callable[..., None]] = {
    "optimize": optimize, "compile": compile_model, "run": run, "bench": bench, "compare": compare,
    "inspect": inspect, "passes": passes, "targets": targets, "doctor": doctor,
}  # fmt: skip
for _name, _command in _COMMANDS.items():
    app.command(_name)(_command)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"deburr {__version__}")
        raise typer.Exit


@app.callback()
def deburr(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error (anywhere on the line).")] = False,
) -> None:
    """Make trained ONNX models smaller and faster: prune, quantize, compile.

    Results go to stdout, progress and timing to stderr. Exit status: 0 done, 1 the run failed, 2 the call was wrong.
    """


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    kept = [argument for argument in given if argument != "--debug"] or ["--help"]
    try:
        status = typer.main.get_command(app).main(kept, prog_name="deburr", standalone_mode=False)
        sys.stdout.flush()
        if status == INTERRUPTED:  # how typer answers a KeyboardInterrupt
            raise KeyboardInterrupt
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        return _stdout_is_gone()
    except Exception as error:
        if debug:
            raise
        return _report(error, kept)
    return status if isinstance(status, int) else 0


def _report(error: Exception, arguments: list[str]) -> int:
    if not isinstance(error, DeburrError):
        error = _usage_error(error, arguments) if hasattr(error, "format_message") else _internal_error(error)
    excerpt = getattr(error, "excerpt", "")  # the line of a pipeline and a caret under the place
    return _fail(str(error) + (f"\n{excerpt}" if excerpt else ""), error.exit_code)


def _fail(line: str, status: int) -> int:
    sys.stderr.write(line + "\n")
    return status


def _usage_error(error: Any, arguments: list[str]) -> DeburrError:
    """What typer complains about, as a coded line with the nearest option or command."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "deburr"
    message = str(error.format_message()).split("(Possible options")[0].split("Did you mean")[0].strip().rstrip(".")
    return DeburrError(
        "E901", message[0].lower() + message[1:], hint=_suggestion(error, context, arguments) or f"see {path} --help"
    )


def _suggestion(error: Any, context: Any, arguments: list[str]) -> str:
    import difflib

    names: list[str] = []
    wrong = getattr(error, "option_name", None)
    if wrong and context is not None:
        names = [option for parameter in context.command.params for option in parameter.opts if option.startswith("-")]
    elif context is not None and "No such command" in error.message:
        names, wrong = list(context.command.commands), next((word for word in arguments if not word.startswith("-")), "")
    near = difflib.get_close_matches(wrong or "", names, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else ""


def _internal_error(error: Exception) -> DeburrError:
    return DeburrError(
        "E903", "a defect in deburr", why=f"{type(error).__name__}: {error}",
        hint="please report it with what --debug prints",
    )  # fmt: skip


def _stdout_is_gone() -> int:
    """The reader of a pipe left (`deburr passes | head`): nothing went wrong, and there is nobody to tell."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
