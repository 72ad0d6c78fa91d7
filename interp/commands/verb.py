"""What makes a function a command: mistakes in one line, `--debug`, and `--json` for what it returns."""

import errno
import functools
import inspect
import json
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Annotated, Any, TypeAlias

import typer

from hooks.errors import InterpError
from interp.common.json_values import plain

Document: TypeAlias = dict[str, Any]
"""What a command found, in words and numbers; `docs/commands.md` says what each command's holds."""
OPTIONS = {
    "as_json": Annotated[bool, typer.Option("--json", help="Print one JSON document; all else goes to stderr.")],
    "debug": Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")],
}
REPORT = (
    "this is a fault of interp, not a mistake of yours. Please report it with the command and the traceback, which "
    "--debug shows"
)


def verb(command: Callable[..., Document | None]) -> Callable[..., None]:
    """Make a command of a function that prints for a person and returns the same for a program.

    Examples:
        ```python
        @verb
        def sites_command(model: ModelName) -> Document: ...
        ```
    """

    @functools.wraps(command)
    def run(*args: Any, as_json: bool = False, debug: bool = False, **kwargs: Any) -> None:
        with report_errors(debug), _notes_in_lines():
            if not as_json:
                command(*args, **kwargs)
                return
            with redirect_stdout(sys.stderr):
                found = command(*args, **kwargs)
            if found is not None:
                typer.echo(json.dumps(plain(found), ensure_ascii=False, indent=1, allow_nan=False))

    signature = inspect.signature(command)
    kind = inspect.Parameter.KEYWORD_ONLY
    more = [inspect.Parameter(name, kind, default=False, annotation=of) for name, of in OPTIONS.items()]
    run.__dict__.pop("__wrapped__")
    run.__dict__["__signature__"] = signature.replace(parameters=[*signature.parameters.values(), *more])
    run.__annotations__ = command.__annotations__ | OPTIONS
    return run


@contextmanager
def _notes_in_lines() -> Iterator[None]:
    """Print what a command warns of as a line for a person, without the place in the code that it came from."""
    with warnings.catch_warnings():
        shown = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *rest: Any) -> None:
            if category is UserWarning:
                typer.echo(f"note: {message}", err=True)
            else:
                shown(message, category, *rest)

        warnings.showwarning = show
        yield


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
        _end(error, " ".join(_say(error).split()), 2, debug)
    except Exception as error:
        _end(error, f"{type(error).__name__}: {' '.join(str(error).split())}\n{REPORT}", 1, debug)


ADVICE = {
    errno.ENOENT: "there is no such file or folder: correct the path",
    errno.EACCES: "it may not be read or written by you: change its permissions, or name another place",
    errno.EPERM: "it may not be read or written by you: change its permissions, or name another place",
    errno.EROFS: "its disk takes no writing: name a place on another",
    errno.EEXIST: "it is there already: name another place, or remove it",
    errno.EISDIR: "it is a folder, and a file was expected: name a file",
    errno.ENOTDIR: "a part of the path is a file, and a folder was expected: name a folder",
    errno.ENOTEMPTY: "it is a folder that holds something: name another place, or empty it",
    errno.ENOSPC: "the disk is full: free some of it, or name a place on another",
    errno.ENAMETOOLONG: "the name is too long for a file: name a shorter one",
}


def _say(error: Exception) -> str:
    """What an error says; of an error of the system the file, what was wrong with it, and what to do."""
    if isinstance(error, InterpError) or not isinstance(error, OSError) or error.errno not in ADVICE:
        return str(error)
    named = [str(name) for name in (error.filename, error.filename2) if name is not None]
    return f"{' and '.join(named) or 'a file'}: {ADVICE[error.errno]}"


def _end(error: Exception, text: str, code: int, debug: bool) -> None:
    if debug:
        typer.echo("".join(traceback.format_exception(error)), err=True, nl=False)
    typer.echo(f"error: {text}", err=True)
    raise typer.Exit(code) from None
