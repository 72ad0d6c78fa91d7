"""`python -m interp.landmark`: the commands of the bundled model."""

from interp.landmark.commands import app

app()
