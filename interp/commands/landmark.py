"""The `interp landmark` commands: train the bundled model, measure it and write its card, print its corpus."""

import shutil
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from interp.commands.errors import told
from interp.commands.landmark_card import measure, write_card
from interp.common.device import device_called
from interp.landmark.documents import documents
from interp.landmark.train import train

app = typer.Typer(help="The bundled model: its corpus, training and card.", no_args_is_help=True)
PACKAGED = Path(__file__).parent / "model"


@app.command("train")
@told
def train_command(
    folder: Annotated[Path, typer.Argument(help="Where to write; give the same folder again to resume.")],
    seed: int = 0,
    architecture: Annotated[str, typer.Option(help="'gpt2', or 'llama' for the gated sibling.")] = "gpt2",
    keep_checkpoints: Annotated[bool, typer.Option(help="Keep a model at every power of two of steps.")] = False,
    device: Annotated[str | None, typer.Option(help="Such as cuda or cpu; a GPU if there is one.")] = None,
) -> None:
    """Train the bundled model from its corpus, resumable."""
    place = device_called(device)
    trained = train(folder, seed=seed, architecture=architecture, keep_checkpoints=keep_checkpoints, device=place)
    typer.echo(f"trained: {trained}")


@app.command("card")
@told
def card_command(
    folder: Annotated[Path, typer.Argument(help="The folder a training run wrote to.")],
    install: Annotated[bool, typer.Option(help="Copy the model and its card into the package.")] = False,
) -> None:
    """Measure a trained model and write its card beside it."""
    typer.echo(write_card(measure(folder), folder / "model" / "README.md"))
    if install:
        shutil.copytree(folder / "model", PACKAGED, dirs_exist_ok=True)


@app.command("corpus")
@told
def corpus_command(n: Annotated[int, typer.Argument(help="How many documents.")] = 10, seed: int = 0) -> None:
    """Print documents of the corpus."""
    for document in islice(documents(seed), n):
        typer.echo(f"[{document.genre}] {document.text}\n")
