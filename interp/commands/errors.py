"""How a command ends: a mistake in one line with exit code 2, a fault of the library with exit code 1."""

import errno
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from hooks.errors import InterpError

REPORT = (
    "this is a fault of interp, not a mistake of yours. Please report it with the command and the traceback, which "
    "--debug shows"
)


@contextmanager
def report_errors(debug: bool = False) -> Iterator[None]:
    """End the command on an error: `InterpError` and `OSError` in one line with code 2, any other as a fault, code 1.

    With `debug` the traceback is printed first.
    """
    try:
        yield
    except (typer.Exit, typer.Abort):
        raise
    except (InterpError, OSError) as error:
        if isinstance(error, OSError) and error.errno == errno.EPIPE:
            raise  # what reads our output has ended, as in `interp ... | head`: typer ends without a word
        _end(error, " ".join(str(error).split()), 2, debug)
    except Exception as error:
        _end(error, f"{type(error).__name__}: {' '.join(str(error).split())}\n{REPORT}", 1, debug)


def _end(error: Exception, text: str, code: int, debug: bool) -> None:
    if debug:
        typer.echo("".join(traceback.format_exception(error)), err=True, nl=False)
    typer.echo(f"error: {text}", err=True)
    raise typer.Exit(code) from None
