"""Calls of the `interp` command, and what they print."""

from typer.testing import CliRunner

from interp.commands.app import app


def call(*words: str, code: int = 0) -> str:
    """Run a command that is to end with this code, and return what it printed; of a mistake, what it said."""
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == code, (result.output, result.exception)
    return result.stdout if code == 0 else result.stderr
