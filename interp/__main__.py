"""`python -m interp`: the `interp` command."""

from interp.commands.app import app

app()
