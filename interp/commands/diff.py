"""The command `interp diff`: what tuning changed, next to what a placebo tuning changed."""

from dataclasses import dataclass
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
from interp.commands.checks import check_layer, check_new
from interp.commands.verb import Document, verb
from interp.landmark import unseen_texts
from interp.landmark.guide import load_guide, runs
from interp.show import (
    Section,
    difference_panel,
    predictions_panel,
    raised_words_panel,
    report,
    weights_panel,
)
from interp.show.frame import page_at
from interp.tuning import (
    Difference,
    ModelPair,
    SiteDivergence,
    TokenDivergence,
    WeightDifference,
    WordsOfDifference,
    load_pair,
    measure_difference,
    measure_site_divergence,
    measure_token_divergence,
    measure_weight_difference,
    read_difference,
)

GUIDE = "guide:"
SAME = "the two models compute the same on all these texts, so no site holds anything of a difference"


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
    first: Annotated[
        int, typer.Option(min=1, help="At how many of a text's first tokens the states are compared.")
    ] = 5,
    layer: Annotated[int | None, typer.Option(min=0, help="After which block the difference is read as words.")] = None,
    direction: Annotated[Path | None, typer.Option(help="Where to save that difference as a direction.")] = None,
    out: Annotated[Path | None, typer.Option(help="A page to write.")] = None,
    device: Device = None,
    quiet: Quiet = False,
) -> Document:
    """Compare a model with what it was tuned from: states on unrelated texts, predictions, weights; with a placebo."""
    if texts is None and base != "landmark":
        raise InvalidArgument(f"--texts is missing: {base} needs texts that have nothing to do with its tuning")
    lines = None if texts is None else read_lines(texts)
    if direction is not None:
        check_new(direction)
        make_parent_folder(direction)
    if out is not None:
        page_at(out)
    check_layer(base, layer)
    pair = _pair(base, tuned, device, quiet)
    lines = lines or [text for text in unseen_texts(pair.base, 120, seed=7) if len(text) > 60][:64]
    site = resid_post[(2 * pair.base.n_layers) // 3 if layer is None else layer]
    own = _measure(pair, lines, first, site, quiet)
    control = None
    if placebo is not None:
        second = ModelPair(pair.base, _pair(base, placebo, device, quiet).tuned)
        control = _measure(second, lines, first, site, quiet)
    if direction is not None:
        own.states.direction(site).save(direction)
    document = _show(pair, own, control, len(lines))
    if direction is not None:
        typer.echo(f"direction: {direction.resolve()}")
    if out is not None:
        _write(out, (base, tuned), own, control, len(lines))
        typer.echo(f"page: {out.resolve()}")
    return {**document, "direction": direction, "page": out}


@dataclass(frozen=True)
class _Measured:
    """Everything that is measured of one pair."""

    states: Difference
    sites: SiteDivergence
    tokens: TokenDivergence
    words: WordsOfDifference
    weights: WeightDifference

    @property
    def same(self) -> bool:
        """Whether states and predictions are the same everywhere."""
        return self.tokens.mean.value == 0 and not bool(self.states.mean.any())


def _measure(pair: ModelPair, lines: list[str], first: int, site: Site, quiet: bool) -> _Measured:
    states = measure_difference(pair, lines, first=first, progress=not quiet)
    return _Measured(
        states,
        measure_site_divergence(pair, lines[:24], progress=not quiet),
        measure_token_divergence(pair, lines[:24], progress=not quiet),
        read_difference(pair, states, site),
        measure_weight_difference(pair, progress=not quiet),
    )


def _show(pair: ModelPair, own: _Measured, control: _Measured | None, n: int) -> Document:
    rows = _rows(own, control)
    if own.same:
        typer.echo(SAME)
    typer.echo("state: length of the mean difference over that of the base's states; held: share of the divergence")
    typer.echo(f"{'after':<16}{'state':>8}{'by chance':>11}{'placebo':>9}{'held':>8}{'placebo':>9}")
    for row in rows:
        shown = ["" if row[key] is None else f"{row[key]:.3f}" for key in ("state_placebo", "held_placebo")]
        typer.echo(
            f"{row['site']:<16}{row['state']:>8.3f}{row['by_chance']:>11.3f}{shown[0]:>9}{row['held'].value:>8.2f}"
            f"{shown[1]:>9}"
        )
    typer.echo(str(own.tokens))
    if control is not None:
        typer.echo(f"the placebo's: {control.sites.whole} nats a token")
    typer.echo(str(own.words))
    typer.echo(str(own.weights))
    return {
        "base": pair.base.name,
        "tuned": pair.tuned.name,
        "texts": n,
        "sites": rows,
        "divergence": own.tokens.mean,
        "placebo_divergence": None if control is None else control.sites.whole,
        "words": [*own.words.base],
        "weights": [{"matrix": one.name, "relative": one.relative, "rank": one.rank} for one in own.weights.changes],
    }


def _write(out: Path, names: tuple[str, str], own: _Measured, control: _Measured | None, n: int) -> Path:
    """A page: what changed in states, predictions, words and weights, next to the placebo's."""
    other = None if control is None else (control.states, control.sites)
    panels = (
        difference_panel(own.states, own.sites, other),
        raised_words_panel(own.words, control and control.words),
    )
    said = predictions_panel(own.tokens, control and control.tokens.mean)
    moved = weights_panel(own.weights, control and control.weights)
    return report(
        out,
        f"What tuning changed: {names[1]}",
        f"A model next to {names[0]}, from which it was tuned, on {n} texts that have nothing to do with the tuning."
        + (f" {SAME[:1].upper()}{SAME[1:]}." if own.same else ""),
        [
            Section("What it says", "The same texts, read by both.", (said,)),
            Section("What it thinks", "The states after every block, and what the difference says as words.", panels),
            Section("What was written", "The matrices that write to the stream.", (moved,)),
        ],
    )


def _rows(own: _Measured, control: _Measured | None) -> list[dict[str, Any]]:
    """A row for each site: the mean over tokens of what the states moved, and what of the divergence it holds."""
    return [
        {
            "site": str(site),
            "state": float(own.states.relative[i].mean()),
            "by_chance": float(own.states.by_chance[i].mean()),
            "state_placebo": None if control is None else float(control.states.relative[i].mean()),
            "held": own.sites[site],
            "held_placebo": None if control is None else control.sites[site].value,
        }
        for i, site in enumerate(own.states.sites)
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
