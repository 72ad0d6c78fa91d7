"""What makes a function a command: mistakes in one line, `--debug`, and `--json` for what the function returns."""

import functools
import inspect
import json
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Annotated, Any, TypeAlias

import typer

from interp.commands.errors import report_errors
from interp.common.json_values import plain

Document: TypeAlias = dict[str, Any]
"""What a command found, in words and numbers; `docs/commands.md` says what each command's holds."""
OPTIONS = {
    "as_json": Annotated[bool, typer.Option("--json", help="Print one JSON document; all else goes to stderr.")],
    "debug": Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")],
}


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
        with report_errors(debug):
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
