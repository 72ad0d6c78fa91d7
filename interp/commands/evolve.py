"""The command `interp evolve`: fluent texts that a latent or a direction is large at, next to real ones."""

from pathlib import Path
from typing import Annotated

import typer

from hooks import Direction
from hooks.plurals import count_of
from interp.commands.arguments import (
    PREDICTS,
    Device,
    ModelName,
    Quiet,
    check_one_vector,
    check_predicts,
    load_model,
    read_lines,
)
from interp.commands.verb import Document, verb
from interp.sae import load as load_sae
from interp.visualisation import (
    Objective,
    TextComparison,
    along,
    compare_with_texts,
    evolve_texts,
    evolve_texts_for_random,
)


@verb
def evolve_command(
    model: ModelName,
    texts: Annotated[Path, typer.Argument(help="Real texts to compare with, one per line.")],
    direction: Annotated[Path | None, typer.Option(help="A saved direction.")] = None,
    sae: Annotated[Path | None, typer.Option(help="A sparse autoencoder, one of whose latents is looked at.")] = None,
    latent: Annotated[int | None, typer.Option(min=0, help="That latent.")] = None,
    length: Annotated[int, typer.Option(min=1, help="Tokens of a text.")] = 8,
    steps: Annotated[int, typer.Option(min=1, help="Steps of the evolution.")] = 100,
    within: Annotated[
        float, typer.Option(min=0, help="How many nats for each token less likely than the best real text one may be.")
    ] = 2.0,
    seed: Annotated[int, typer.Option(min=0, help="Of what is drawn.")] = 0,
    device: Device = None,
    quiet: Quiet = False,
) -> Document:
    """Write texts that a latent or a direction is large at, from outlandish to likely, next to real ones (minutes)."""
    check_one_vector(direction, sae, latent)
    real = read_lines(texts)
    objective = along(_direction(direction, sae, latent))
    check_predicts(model, "a likely text is written", PREDICTS)
    loaded = load_model(model, device, quiet=quiet)
    front = evolve_texts(loaded, objective, length=length, steps=steps, seed=seed, progress=not quiet)
    found = compare_with_texts(loaded, front, real, within=within)
    control = evolve_texts_for_random(loaded, front, steps=steps, seed=seed, progress=not quiet)
    random = compare_with_texts(loaded, control, real, within=within)
    typer.echo(f"{objective}: {count_of(front.read, 'text')} read; values, nats a token and texts, the largest first:")
    rows = {*zip(front.values.tolist(), front.cross_entropies.tolist(), front.texts, strict=True)}
    for value, nats, text in sorted(rows, reverse=True)[:6]:
        typer.echo(f"{value:>10.3g}  {nats:5.2f}  {text!r}")
    _say(objective, found)
    _say(control.objective, random)
    return {
        "objective": str(objective),
        "texts": [
            {"text": text, "value": value, "cross_entropy": ce}
            for text, value, ce in zip(front.texts, front.values.tolist(), front.cross_entropies.tolist(), strict=True)
        ],
        "comparison": vars(found),
        "control": vars(random),
    }


def _direction(direction: Path | None, sae: Path | None, latent: int | None) -> Direction:
    if sae is not None and latent is not None:
        return load_sae(sae).direction(latent)
    assert direction is not None  # one of the two is given
    return Direction.load(direction)


def _say(objective: Objective, found: TextComparison) -> None:
    typer.echo(
        f"{objective}: {found.text!r} {found.value:.3g} at {found.cross_entropy:.2f} nats a token; the greatest of "
        f"real texts {found.natural_text!r} {found.greatest:.3g} at {found.natural_cross_entropy:.2f}"
    )
