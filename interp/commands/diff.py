"""The command `interp diff`: what tuning changed, next to what a placebo tuning changed."""

from pathlib import Path
from typing import Annotated, Any

import typer

from hooks import Model, Site
from hooks.errors import InvalidArgument, UnknownName, nearest
from hooks.site import resid_post
from interp.commands.arguments import (
    Device,
    Quiet,
    check_device,
    check_reachable,
    hide_bars,
    make_parent_folder,
    read_lines,
    show_step,
)
from interp.commands.verb import Document, verb
from interp.landmark import unseen_texts
from interp.landmark.guide import load_guide, runs
from interp.tuning import (
    Difference,
    ModelPair,
    SiteDivergence,
    load_pair,
    measure_difference,
    measure_site_divergence,
    measure_token_divergence,
    measure_weight_difference,
    read_difference,
)

GUIDE = "guide:"


@verb
def diff_command(
    base: Annotated[str, typer.Argument(metavar="BASE", help="'landmark', a folder, or a Hugging Face id.")],
    tuned: Annotated[
        str, typer.Argument(metavar="TUNED", help="The same, a folder with a LoRA adapter, or 'guide:chess_100'.")
    ],
    placebo: Annotated[
        str | None, typer.Option(help="The base, tuned as long on text that shows nothing: the control.")
    ] = None,
    texts: Annotated[
        Path | None, typer.Option(help="Texts that have nothing to do with the tuning, one per line.")
    ] = None,
    first: Annotated[int, typer.Option(help="At how many of a text's first tokens the states are compared.")] = 5,
    layer: Annotated[int | None, typer.Option(help="After which block the difference is read as words.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where to save that difference as a direction.")] = None,
    device: Device = None,
    quiet: Quiet = False,
) -> Document:
    """Compare a model with what it was tuned from: states on unrelated texts, predictions, weights; with a placebo."""
    if first < 1:
        raise InvalidArgument(f"--first {first}: compare at least one token")
    if texts is None and base != "landmark":
        raise InvalidArgument(f"--texts is missing: {base} needs texts that have nothing to do with its tuning")
    lines = None if texts is None else read_lines(texts)
    if out is not None:
        make_parent_folder(out)
    pair = _pair(base, tuned, device, quiet)
    if layer is not None and not 0 <= layer < pair.base.n_layers:
        raise InvalidArgument(f"--layer {layer}: {base} has blocks 0 to {pair.base.n_layers - 1}")
    lines = lines or [text for text in unseen_texts(pair.base, 120, seed=7) if len(text) > 60][:64]
    found = measure_difference(pair, lines, first=first, progress=not quiet)
    by_site = measure_site_divergence(pair, lines[:24], progress=not quiet)
    control = None
    if placebo is not None:
        second = ModelPair(pair.base, _pair(base, placebo, device, quiet).tuned)
        control = (
            measure_difference(second, lines, first=first, progress=not quiet),
            measure_site_divergence(second, lines[:24], progress=not quiet),
        )
    site = resid_post[(2 * pair.base.n_layers) // 3 if layer is None else layer]
    return _show(pair, found, by_site, control, lines, site, out)


def _show(
    pair: ModelPair,
    found: Difference,
    by_site: SiteDivergence,
    control: tuple[Difference, SiteDivergence] | None,
    lines: list[str],
    site: Site,
    out: Path | None,
) -> Document:
    rows = _rows(found, by_site, control)
    typer.echo("state: length of the mean difference over that of the base's states; held: share of the divergence")
    typer.echo(f"{'after':<16}{'state':>8}{'by chance':>11}{'placebo':>9}{'held':>8}{'placebo':>9}")
    for row in rows:
        shown = ["" if row[key] is None else f"{row[key]:.3f}" for key in ("state_placebo", "held_placebo")]
        typer.echo(
            f"{row['site']:<16}{row['state']:>8.3f}{row['by_chance']:>11.3f}{shown[0]:>9}{row['held'].value:>8.2f}"
            f"{shown[1]:>9}"
        )
    tokens = measure_token_divergence(pair, lines[:24])
    typer.echo(str(tokens))
    if control is not None:
        typer.echo(f"the placebo's: {control[1].whole} nats a token")
    words = read_difference(pair, found, site)
    typer.echo(str(words))
    weights = measure_weight_difference(pair)
    typer.echo(str(weights))
    if out is not None:
        found.direction(site).save(out)
        typer.echo(f"direction: {out.resolve()}")
    return {
        "base": pair.base.name,
        "tuned": pair.tuned.name,
        "texts": len(lines),
        "sites": rows,
        "divergence": tokens.mean,
        "placebo_divergence": None if control is None else control[1].whole,
        "words": [*words.base],
        "weights": [{"matrix": one.name, "relative": one.relative, "rank": one.rank} for one in weights.changes],
        "direction": out,
    }


def _rows(
    found: Difference, by_site: SiteDivergence, control: tuple[Difference, SiteDivergence] | None
) -> list[dict[str, Any]]:
    """A row for each site: the mean over tokens of what the states moved, and what of the divergence it holds."""
    return [
        {
            "site": str(site),
            "state": float(found.relative[i].mean()),
            "by_chance": float(found.by_chance[i].mean()),
            "state_placebo": None if control is None else float(control[0].relative[i].mean()),
            "held": by_site[site],
            "held_placebo": None if control is None else control[1][site].value,
        }
        for i, site in enumerate(found.sites)
    ]


def _pair(base: str, tuned: str, device: str | None, quiet: bool) -> ModelPair:
    place = str(check_device(device))
    for name in (base, tuned):
        if not name.startswith(GUIDE):
            check_reachable(name)
    hide_bars()
    with show_step(f"loading {base} and {tuned}", quiet):
        if not tuned.startswith(GUIDE):
            return load_pair(base, tuned, device=place)
        guide = _guide(tuned.removeprefix(GUIDE))
        return ModelPair(load_pair(base, base, device=place).base, guide)


def _guide(name: str) -> Model:
    there = {run.name: run for run in runs()}
    if name not in there:
        raise UnknownName(f"no guide is called {name!r}; the nearest is {nearest(name, there)}")
    run = there[name]
    return load_guide(run.behaviour, run.dose, run.seed)
