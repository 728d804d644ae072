"""The command line: one file per command. Nothing heavy is imported before a command runs, so that --help answers at once."""

from deburr.cli.app import main

__all__ = ["main"]
