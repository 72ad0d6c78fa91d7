"""`python -m interp`: the `interp` command."""

from interp.commands.app import app

if __name__ == "__main__":
    app()
