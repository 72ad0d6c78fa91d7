"""The command `interp lens`: what every layer of a model would say next, through a lens of one's choice."""

from pathlib import Path
from typing import Annotated, Any

import typer

from hooks import Model
from hooks.errors import InvalidArgument, MissingFile
from interp.commands.arguments import Device, FirstToken, ModelName, Quiet, load_to_answer
from interp.commands.verb import Document, verb
from interp.lenses import JacobianLens, Lens, LensReading, LogitLens, TunedLens, rank, read
from interp.show import Section, divergence_panel, lens_panel, report
from interp.show.frame import page_at


@verb
def lens_command(
    model: ModelName,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What the model reads.")],
    tuned: Annotated[Path | None, typer.Option(help="A tuned lens; the logit lens if none is given.")] = None,
    jacobian: Annotated[Path | None, typer.Option(help="A Jacobian lens, such as a published one.")] = None,
    word: Annotated[
        str | None, typer.Option(help="A token to rank at every layer, 0 being the likeliest: most begin with a space.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Likeliest tokens to show.")] = 5,
    out: Annotated[Path | None, typer.Option(help="A page to write, with every token.")] = None,
    first_token: FirstToken = False,
    device: Device = None,
    quiet: Quiet = False,
) -> Document:
    """Show what each layer would say after a text, and how far that is from what the model says."""
    _check(text, tuned, jacobian)
    if out is not None:
        page_at(out)
    wanted, words = "a lens reads layers as predictions", {} if word is None else {"--word": word}
    loaded, answers = load_to_answer(model, wanted, first_token, device, quiet=quiet, **words)
    lens = _lens(loaded, tuned, jacobian)
    reading = read(lens, text, top=top)
    ranks = rank(lens, text, answers[0]).ranks[:, 0, -1].tolist() if answers else None
    layers = _layers(reading, ranks)
    ranked = "" if ranks is None else f"{'rank':>7}"
    typer.echo(f"{'layer':<6}{'KL, nats':>9}{'entropy':>9}{ranked}  likeliest")
    for row in layers:
        said = ", ".join(repr(token) for token, _ in row["top"])
        place = f"{row['rank']:>7}" if "rank" in row else ""
        typer.echo(f"{row['layer']:<6}{row['kl']:>9.3f}{row['entropy']:>9.3f}{place}  {said}")
    if out is not None:
        panels = (lens_panel(reading), divergence_panel(reading))
        called = "tuned lens" if tuned is not None else "logit lens" if jacobian is None else "Jacobian lens"
        lead = "The residual stream after every layer, read as the model's next token."
        report(out, f"{loaded.name} through the {called}", lead, [Section("Layers", text, panels)])
        typer.echo(f"page: {out.resolve()}")
    return {"text": text, "lens": reading.lens, "word": word, "layers": layers, "page": out}


def _check(text: str, tuned: Path | None, jacobian: Path | None) -> None:
    if tuned is not None and jacobian is not None:
        raise InvalidArgument("two lenses were given, and a text is read through one: give --tuned or --jacobian")
    for path in (tuned, jacobian):
        if path is not None and not path.exists():
            raise MissingFile(f"there is no lens '{path}': give the path of one that was saved")
        if path is not None and path.is_dir():
            raise InvalidArgument(f"'{path}' is a folder, and a lens is a file: give the one in it that was saved")
    if not text:
        raise InvalidArgument("TEXT is empty: give a text to read")


def _layers(reading: LensReading, ranks: list[int] | None) -> list[dict[str, Any]]:
    """What each layer would say after the last token."""
    rows = []
    for i, layer in enumerate(reading.layers):
        tokens, shares = reading.top[i, 0, -1].tolist(), reading.probability[i, 0, -1].tolist()
        row = {
            "layer": layer,
            "kl": float(reading.kl[i, 0, -1]),
            "entropy": float(reading.entropy[i, 0, -1]),
            "top": [(reading.words[token], share) for token, share in zip(tokens, shares, strict=True)],
        }
        rows.append(row if ranks is None else row | {"rank": ranks[i]})
    return rows


def _lens(model: Model, tuned: Path | None, jacobian: Path | None) -> Lens:
    if tuned is not None:
        return TunedLens.load(tuned, model)
    return LogitLens(model) if jacobian is None else JacobianLens.load(jacobian, model)
