"""The `interp worlds` commands: train a small world whose truth is planted, and print rows of it."""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from hooks import Model, load
from hooks.errors import InvalidArgument, UnknownName, nearest
from hooks.tensor_file import read_tensors
from interp.commands.arguments import NewFolder, Quiet, WrittenOn, check_device
from interp.commands.verb import Document, verb
from interp.landmark.guide import planned_runs, runs, tune_guide
from interp.landmark.guide.read import Run
from interp.landmark.guide.tune import KIND
from interp.worlds.load import MODELS
from interp.worlds.train import WORLDS, train, world

app = typer.Typer(help="Small models whose truth is planted: train one, print what it reads.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help=f"One of {', '.join(WORLDS)}.")]


@app.command("train")
@verb
def train_world_command(
    name: Name,
    folder: NewFolder,
    seed: Annotated[int, typer.Option(min=0, help="Of the first weights and of the rows.")] = 0,
    steps: Annotated[int | None, typer.Option(min=1, help="Stop at this one; run again to go on.")] = None,
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


@app.command("guide")
@verb
def tune_guide_command(
    folder: NewFolder,
    only: Annotated[str | None, typer.Option(help="One of them, such as cheerful_025.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Of each tuning.")] = 100,
    device: WrittenOn = None,
    quiet: Quiet = False,
) -> Document:
    """Tune the siblings of the bundled model that are not in the package; about a minute each, run again to go on."""
    place = check_device(device or "cpu")
    planned = {run.name: run for run in planned_runs()}
    if only is not None and only not in planned:
        raise UnknownName(f"no guide is called {only!r}; the nearest is {nearest(only, planned)}")
    wanted = [run for run in planned.values() if (run not in runs() if only is None else run.name == only)]
    Path(folder).mkdir(parents=True, exist_ok=True)
    model, files = load("landmark", device=place), []
    for run in wanted:
        files.append(Path(folder) / f"{run.name}.safetensors")
        if not _is_tuned(files[-1], run, model, steps):
            tune_guide(model, files[-1], run.behaviour, run.dose, seed=run.seed, steps=steps, progress=not quiet)
        typer.echo(f"tuned: {files[-1]}")
    return {"files": files}


def _is_tuned(file: Path, run: Run, model: Model, steps: int) -> bool:
    """Whether a file holds this tuning; another one's is refused."""
    if not file.exists():
        return False
    _, about = read_tensors(file, KIND)
    asked = {"behaviour": run.behaviour or "", "dose": run.dose, "seed": run.seed, "steps": steps}
    asked |= {"fingerprint": model.fingerprint}
    if other := [name for name in asked if about[name] != asked[name]]:
        name = other[0]
        raise InvalidArgument(
            f"{file} was tuned with {name} {about[name]}, and asked for is {name} {asked[name]}: give what it was "
            "tuned with, or another folder"
        )
    return True


@app.command("rows")
@verb
def rows_command(
    name: Name,
    n: Annotated[int, typer.Option(min=1, help="How many.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Of the rows.")] = 0,
) -> Document:
    """Print rows that a world is trained on."""
    rows = world(name).draw(seed, 0)
    texts = world(name).tokenizer().batch_decode(rows.ids[:n])
    for text in texts:
        typer.echo(f"{text}\n")
    return {"rows": texts}
