"""The command `interp sites`: every place in a model that can be captured."""

import typer

from interp.commands.arguments import Device, ModelName, load_model
from interp.commands.verb import Document, verb


@verb
def sites_command(model: ModelName, device: Device = None) -> Document:
    """List every place in a model that can be captured."""
    loaded = load_model(model, device)
    typer.echo(repr(loaded))
    shapes = {str(site): list(loaded.tap(site).shape) for site in loaded.sites}
    for site, shape in shapes.items():
        typer.echo(f"{site:<18} {' × '.join(map(str, shape))}")
    return {"model": loaded.name, "fingerprint": loaded.fingerprint, "sites": shapes}
