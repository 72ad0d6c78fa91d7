"""The `interp worlds` commands: train a small world whose truth is planted, and print rows of it."""

import shutil
from typing import Annotated

import typer

from interp.commands.arguments import NewFolder, Quiet, WrittenOn, check_device
from interp.commands.verb import Document, verb
from interp.worlds.load import MODELS
from interp.worlds.train import WORLDS, train, world

app = typer.Typer(help="Small models whose truth is planted: train one, print what it reads.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help=f"One of {', '.join(WORLDS)}.")]


@app.command("train")
@verb
def train_world_command(
    name: Name,
    folder: NewFolder,
    seed: Annotated[int, typer.Option(help="Of the first weights and of the rows.")] = 0,
    steps: Annotated[int | None, typer.Option(help="Stop at this one; run again to go on.")] = None,
    install: Annotated[bool, typer.Option(help="Copy the model into the package.")] = False,
    device: WrittenOn = None,
    quiet: Quiet = False,
) -> Document:
    """Train a world, with checkpoints at logarithmically spaced steps; minutes on one core, resumable."""
    trained = train(folder, name, seed=seed, steps=steps, device=check_device(device or "cpu"), progress=not quiet)
    typer.echo(f"trained: {trained}")
    if install:
        shutil.copytree(trained, MODELS / name, dirs_exist_ok=True)
    return {"model": trained, "world": name, "seed": seed}


@app.command("rows")
@verb
def rows_command(
    name: Name,
    n: Annotated[int, typer.Option(help="How many.")] = 5,
    seed: Annotated[int, typer.Option(help="Of the rows.")] = 0,
) -> Document:
    """Print rows that a world is trained on."""
    rows = world(name).draw(seed, 0)
    texts = world(name).tokenizer().batch_decode(rows.ids[:n])
    for text in texts:
        typer.echo(f"{text}\n")
    return {"rows": texts}
