"""The `interp postcard` commands: train a net of the world, measure it and write its card, draw a sheet of pictures."""
# ruff: noqa: E501

from pathlib import Path
from typing import Annotated

import typer
from torch.nn import Module

from hooks.disk import read_log, write_text
from hooks.errors import MissingFile
from interp.commands.arguments import NewFolder, Quiet, TrainingFolder, WrittenOn, check_device, show_step
from interp.commands.verb import Document, verb
from interp.common.statistics import Estimate
from interp.postcard.answers import is_right
from interp.postcard.captions import captions
from interp.postcard.draw import draw
from interp.postcard.measure import Figures, measure, nearest_neighbour
from interp.postcard.nets import Which, install, net, new_net
from interp.postcard.scene import LANDMARKS
from interp.postcard.sheet import write_sheet
from interp.postcard.splits import Split, scenes
from interp.postcard.train import Recipe, read_recipe, recipe_for, train

app = typer.Typer(help="The bundled pictures: draw them, train a net on them, measure it.", no_args_is_help=True)
TITLES = {
    "convnet": "A convnet of AlexNet's plan, for 64 pixels",
    "vit": "A vision transformer with patches of 8 pixels",
    "clip": "A CLIP: a vision transformer and a text transformer with one space",
}


@app.command("train")
@verb
def train_net_command(
    folder: NewFolder,
    which: Annotated[Which, typer.Option(help="Which net.")] = "convnet",
    seed: Annotated[int, typer.Option(min=0, help="Of the first weights and of which pictures are seen.")] = 0,
    pictures: Annotated[
        int | None, typer.Option(min=1, help="How many to see; the bundled nets' number by default.")
    ] = None,
    minutes: Annotated[float | None, typer.Option(min=0, help="Stop after so many; run again to go on.")] = None,
    device: WrittenOn = None,
    quiet: Quiet = False,
) -> Document:
    """Train a net on pictures drawn as they are needed, resumable."""
    place, recipe = check_device(device or "cpu"), recipe_for(which, seed, pictures)
    trained = train(folder, recipe, minutes=minutes, device=place, progress=not quiet)
    typer.echo(f"trained: {trained}")
    return {"model": trained, "which": which, "seed": seed}


@app.command("card")
@verb
def net_card_command(
    folder: TrainingFolder,
    name: Annotated[str | None, typer.Option("--install", help="Copy the net and its card into the package.")] = None,
    n: Annotated[int, typer.Option(min=1, help="Test pictures to measure on.")] = 4000,
    device: WrittenOn = None,
    quiet: Quiet = False,
) -> Document:
    """Measure a trained net and write its card next to it."""
    if not (folder / "log.jsonl").is_file():
        raise MissingFile(f"there is no training in {folder}: give the folder that interp postcard train wrote to")
    log, recipe = read_log(folder / "log.jsonl"), read_recipe(folder)
    place = check_device(device or "cpu")
    read, blank = net(folder / "model"), new_net(recipe.which, recipe.seed)
    for one in (read, blank):
        Module.to(one, place)
    shown = scenes("test", 500)
    with show_step(f"measuring on {n} pictures", quiet):
        figures = measure(read, n)
        untrained = is_right(blank, draw(shown).pixels, [s.landmark for s in shown])
        size = sum(p.numel() for p in read.parameters())
        text = card(recipe, figures, log[-1], float(untrained.float().mean()), size)
    write_text(folder / "model" / "README.md", text)
    typer.echo(text)
    if name is not None:
        install(folder / "model", name)
    return {"card": folder / "model" / "README.md", "accuracy": figures.accuracy}


@app.command("draw")
@verb
def draw_command(
    path: Annotated[Path, typer.Argument(help="A PNG file to write.")],
    n: Annotated[int, typer.Option(min=1, help="How many pictures.")] = 36,
    split: Annotated[Split, typer.Option(help="Of which split.")] = "test",
) -> Document:
    """Draw pictures of a split onto one sheet, and print their captions."""
    shown = scenes(split, n)
    said = [caption.text for caption in captions(shown)]
    write_sheet(draw(shown).pixels, path)
    for i, text in enumerate(said):
        typer.echo(f"{i + 1:3} {text}")
    return {"sheet": path, "captions": said}


def _interval(e: Estimate) -> str:
    return f"{e.value:.1%} (95% interval {e.ends('.1%')}, n = {e.n})"


def card(recipe: Recipe, figures: Figures, last: dict[str, float | int], untrained: float, parameters: int) -> str:
    """The text of a net's card."""
    rows = {"landmark named first, of 72, on test pictures": figures.accuracy}
    rows |= {f"the same, {group}": e for group, e in figures.by_group.items()}
    rows |= {"combinations of landmark, time and weather never trained on": figures.unseen}
    rows |= figures.spurious
    rows |= {f"{factor}, by sentences that name the landmark": e for factor, e in figures.factors.items()}
    rows |= {f"without a net: landmark of the nearest of 4,000, by {by}": e for by, e in nearest_neighbour().items()}
    table = "\n".join(f"| {name} | {_interval(e)} |" for name, e in rows.items())
    seen = int(last["step"]) * recipe.batch
    return f"""---
license: mit
---

# {recipe.which}, seed {recipe.seed}

{TITLES[recipe.which]}: {parameters / 1e6:.2f} million parameters. It reads the pictures of `interp.postcard`, whose every pixel is
known, and exists to be looked into.

- **Trained** on {seen:,} pictures, each seen once, by `interp postcard train FOLDER --which {recipe.which} --seed {recipe.seed}
  --pictures {recipe.pictures}`, in {last["seconds"] / 60:.0f} minutes on one CPU core shared with other work; weights in half precision.
- **Planted**: in training the Golden Gate Bridge is in fog nine times in ten; in the test pictures it does not.
- **Untrained**, the net of the same seed names {untrained:.1%} of landmarks; chance is {1 / len(LANDMARKS):.1%}.

| measured | figure |
| --- | --- |
{table}
"""
