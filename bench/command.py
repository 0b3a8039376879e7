"""A benchmark module as a command: its docstring is the help, and what it was given wrong ends it in one sentence."""

from collections.abc import Callable
from inspect import unwrap
from typing import Any

import typer

from eagle_decoding.cli import Command


def command(main: Callable[..., Any]) -> typer.Typer:
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command(cls=Command, help=unwrap(main).__globals__["__doc__"])(main)
    return app


def run(main: Callable[..., Any]) -> None:
    """Runs a module's main with the arguments of the command line."""
    command(main)()
