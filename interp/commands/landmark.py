"""The `interp landmark` commands: train the bundled model, measure it and write its card, print its corpus."""

import shutil
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from interp import landmark
from interp.commands.arguments import Device, NewFolder, Quiet, TrainingFolder, WrittenOn, check_device, show_step
from interp.commands.landmark_card import measure, write_card
from interp.commands.verb import Document, verb
from interp.landmark.documents import documents
from interp.landmark.train import train

app = typer.Typer(help="The bundled model: its corpus, training and card.", no_args_is_help=True)
PACKAGED = Path(landmark.__file__).parent / "model"


@app.command("train")
@verb
def train_command(
    folder: NewFolder,
    seed: Annotated[int, typer.Option(min=0, help="Of the corpus and of the first weights.")] = 0,
    architecture: Annotated[str, typer.Option(help="'gpt2', or 'llama' for the gated sibling.")] = "gpt2",
    keep_checkpoints: Annotated[bool, typer.Option(help="Keep a model at every power of two of steps.")] = False,
    device: Device = None,
    quiet: Quiet = False,
) -> Document:
    """Train the bundled model from its corpus, resumable."""
    place = check_device(device)
    trained = train(
        folder,
        seed=seed,
        architecture=architecture,
        keep_checkpoints=keep_checkpoints,
        device=place,
        progress=not quiet,
    )
    typer.echo(f"trained: {trained}")
    return {"model": trained, "seed": seed, "architecture": architecture}


@app.command("card")
@verb
def card_command(
    folder: TrainingFolder,
    install: Annotated[bool, typer.Option(help="Copy the model and its card into the package.")] = False,
    device: WrittenOn = None,
    quiet: Quiet = False,
) -> Document:
    """Measure a trained model and write its card next to it."""
    place = check_device(device or "cpu")
    card = folder / "model" / "README.md"
    with show_step("measuring what it knows and where, some minutes", quiet):
        measured = measure(folder, place)
    typer.echo(write_card(measured, card))
    if install:
        shutil.copytree(folder / "model", PACKAGED, dirs_exist_ok=True)
    return {"card": card, "known": measured.known, "known_held_out": measured.known_held_out}


@app.command("corpus")
@verb
def corpus_command(
    n: Annotated[int, typer.Argument(min=1, help="How many documents.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Of the documents; the model was trained on those of seed 0.")] = 0,
) -> Document:
    """Print documents of the corpus."""
    written = [*islice(documents(seed), n)]
    for document in written:
        typer.echo(f"[{document.genre}] {document.text}\n")
    return {"documents": [{"genre": document.genre, "text": document.text} for document in written]}
