"""The command `interp lens`: what every layer of a model would say next, through a lens of one's choice."""

from pathlib import Path
from typing import Annotated

import typer

from hooks import Model, load
from hooks.errors import InvalidArgument
from interp.lenses import JacobianLens, Lens, LogitLens, TunedLens, rank, read
from interp.show import Section, divergence_panel, lens_panel, report
from interp.show.frame import page_at


def lens_command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="'landmark', a folder, or a Hugging Face id.")],
    text: Annotated[str, typer.Argument(help="What the model reads.")],
    tuned: Annotated[Path | None, typer.Option(help="A tuned lens; the logit lens if none is given.")] = None,
    jacobian: Annotated[Path | None, typer.Option(help="A Jacobian lens, such as a published one.")] = None,
    word: Annotated[str | None, typer.Option(help="A token to rank at every layer.")] = None,
    top: Annotated[int, typer.Option(help="Likeliest tokens to show.")] = 5,
    out: Annotated[Path | None, typer.Option(help="A page to write, with every token.")] = None,
) -> None:
    """Show what each layer would say after a text, and how far that is from what the model says."""
    if out is not None:
        page_at(out)
    loaded = load(model)
    lens = _lens(loaded, tuned, jacobian)
    reading = read(lens, text, top=top)
    ranks = None if word is None else rank(lens, text, word).ranks[:, 0, -1].tolist()
    typer.echo(f"{'layer':<6}{'KL, nats':>9}{'entropy':>9}{'rank':>7}  likeliest")
    for i, layer in enumerate(reading.layers):
        place = "" if ranks is None else str(ranks[i])
        said = ", ".join(repr(reading.words[token]) for token in reading.top[i, 0, -1].tolist())
        kl, entropy = float(reading.kl[i, 0, -1]), float(reading.entropy[i, 0, -1])
        typer.echo(f"{layer:<6}{kl:>9.3f}{entropy:>9.3f}{place:>7}  {said}")
    if out is not None:
        panels = (lens_panel(reading), divergence_panel(reading))
        lead = "The residual stream behind every layer, read as the model's next token."
        written = report(out, f"{loaded.name} through the {reading.lens}", lead, [Section("Layers", text, panels)])
        typer.echo(f"page: {written.resolve()}")


def _lens(model: Model, tuned: Path | None, jacobian: Path | None) -> Lens:
    if tuned is not None and jacobian is not None:
        raise InvalidArgument("two lenses were given, and a text is read through one: give --tuned or --jacobian")
    if tuned is not None:
        return TunedLens.load(tuned, model)
    return LogitLens(model) if jacobian is None else JacobianLens.load(jacobian, model)
