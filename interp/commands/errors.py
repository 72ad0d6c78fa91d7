"""A user's mistake in a command: told in one sentence, with exit code 2."""

import functools
from collections.abc import Callable
from typing import ParamSpec

import typer

Given = ParamSpec("Given")
MISTAKES = (ValueError, TypeError, LookupError, OSError, RuntimeError)


def told(command: Callable[Given, None]) -> Callable[Given, None]:
    """Let a command end a user's mistake with one sentence and exit code 2."""

    @functools.wraps(command)
    def careful(*args: Given.args, **kwargs: Given.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except MISTAKES as error:
            said = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
            typer.echo(f"error: {' '.join(said.split())}", err=True)
            raise typer.Exit(2) from None

    return careful
