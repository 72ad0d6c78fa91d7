"""The command `interp capture`: the activations of texts into one file."""

from pathlib import Path
from typing import Annotated

import typer

from hooks import capture
from interp.commands.arguments import (
    Device,
    ModelName,
    Quiet,
    TextsFile,
    check_sites,
    load_model,
    make_parent_folder,
    read_lines,
)
from interp.commands.checks import check_new
from interp.commands.verb import Document, verb


@verb
def capture_command(
    model: ModelName,
    texts: TextsFile,
    at: Annotated[list[str], typer.Option("--site", help="A site to capture, or a glob; may be repeated.")],
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("activations.safetensors"),
    device: Device = None,
    quiet: Quiet = False,
) -> Document:
    """Save the activations of texts at some sites."""
    given = read_lines(texts)
    check_sites(at)
    check_new(out)
    make_parent_folder(out)
    acts = capture(load_model(model, device, quiet=quiet), given, at, progress=not quiet)
    acts.save(out)
    shapes = {str(site): list(acts[site].shape) for site in acts.sites}
    for site, shape in shapes.items():
        typer.echo(f"{site:<18} {' × '.join(map(str, shape))}")
    typer.echo(f"activations: {out.resolve()}")
    return {"texts": len(given), "sites": shapes, "activations": out}
