"""The command `interp probe`: where a model can be read, from a file of labelled texts, next to every control."""

import csv
from pathlib import Path
from textwrap import shorten
from typing import Annotated

import typer

from hooks import Position
from hooks.errors import InvalidArgument, MissingFile, nearest
from hooks.model import resolve_sites
from hooks.position import index, last
from interp.commands.arguments import (
    Device,
    ModelName,
    Quiet,
    check_sites,
    load_model,
    make_parent_folder,
    show_step,
)
from interp.commands.checks import check_new
from interp.commands.verb import Document, verb
from probes import LDA, DifferenceOfMeans, Examples, Logistic, MassMean, Probe, ProbeGrid, sweep
from probes.sweep import sweep_folds

PROBES: dict[str, type[Probe]] = {
    "logistic": Logistic,
    "difference-of-means": DifferenceOfMeans,
    "mass-mean": MassMean,
    "lda": LDA,
}
TRUTHS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
COLUMNS = ("text", "label", "group")


@verb
def probe_command(
    model: ModelName,
    examples: Annotated[
        Path,
        typer.Argument(
            metavar="EXAMPLES",
            help="A .csv or .tsv file whose first line is text,label,group. A label is 1 or 0, true or false, yes or "
            "no. Texts of one group (of one subject, template or source) are learnt from or tested on together.",
        ),
    ],
    at: Annotated[
        list[str] | None, typer.Option("--site", help="A site or glob; every resid_post if not given.")
    ] = None,
    position: Annotated[list[int] | None, typer.Option(help="A token, -1 the last; may be repeated.")] = None,
    probe: Annotated[str, typer.Option(help=f"One of {', '.join(PROBES)}.")] = "logistic",
    elsewhere: Annotated[list[Path] | None, typer.Option(help="Another such file, for transfer.")] = None,
    folds: Annotated[
        int, typer.Option(min=3, help="Parts of the groups, each tested on by the probe of the others.")
    ] = 5,
    permutations: Annotated[int, typer.Option(min=1, help="Fits to shuffled labels, for the chance level.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Of the folds and of the shuffled labels.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Where to write the direction of the best probe.")] = None,
    device: Device = None,
    quiet: Quiet = False,
) -> Document:
    """Probe sites and positions for a label, tested on groups not learnt from; every control is printed."""
    if probe not in PROBES:
        raise InvalidArgument(f"no probe is called '{probe}'; did you mean {nearest(probe, PROBES)}?")
    if out is not None:
        check_new(out)
        make_parent_folder(out)
    check_sites(at or [])
    labelled, paths = read_examples(examples), elsewhere or []
    stems = [path.stem for path in paths]
    others = {path.stem if stems.count(path.stem) == 1 else str(path): read_examples(path) for path in paths}
    sweep_folds(labelled, folds, seed)
    loaded = load_model(model, device, quiet=quiet)
    sites, places = resolve_sites(loaded, at or ["resid_post.*"]), [_place(number) for number in position or [-1]]
    how = {"folds": folds, "permutations": permutations, "elsewhere": others, "seed": seed}
    with show_step(f"probing {len(sites)} sites", quiet):
        grid = sweep(loaded, labelled, sites, places, probe=PROBES[probe](), **how)
    typer.echo(grid)
    if out is not None:
        grid.direction.save(out)
        typer.echo(f"direction: {out.resolve()}")
    return {"examples": len(labelled.texts), "probe": probe, "direction": out} | _as_document(grid)


def _as_document(grid: ProbeGrid) -> Document:
    cells = [
        {
            "site": str(site),
            "position": str(position),
            "accuracy": float(grid.accuracy[i, j]),
            "low": float(grid.low[i, j]),
            "high": float(grid.high[i, j]),
        }
        for i, site in enumerate(grid.sites)
        for j, position in enumerate(grid.positions)
    ]
    site, position = grid.best
    controls = grid.controls
    shuffled = controls.shuffled.tolist()
    return {
        "cells": cells,
        "best": {"site": str(site), "position": str(position)},
        "accuracy": grid.nested,
        "balanced_accuracy": grid.balanced,
        "auroc": grid.auroc,
        "p_value": grid.p_value,
        "least_p_value": grid.least_p_value,
        "chosen": [{"site": str(site), "position": str(position)} for site, position in dict.fromkeys(grid.chosen)],
        "shuffled": {"mean": sum(shuffled) / len(shuffled), "largest": max(shuffled), "n": len(shuffled)},
        "control_task": controls.memorised,
        "selectivity": controls.selectivity,
        "majority": controls.majority,
        "embedding": controls.embedding,
        "embedding_same": controls.embedding_same,
        "untrained": controls.untrained,
        "elsewhere": controls.elsewhere,
    }


def read_examples(path: Path) -> Examples:
    """The labelled texts of a file with a header: text, label (1 or 0, true or false, yes or no), group.

    Raises:
        MissingFile: there is no such file.
        InvalidArgument: a missing column, a row without one, or a label of another kind.

    Examples:
        ```python
        read_examples(Path("cities.csv"))
        ```
    """
    if not path.is_file():
        raise MissingFile(f"there is no file {str(path)!r}: give a .csv or .tsv file with {', '.join(COLUMNS)}")
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ","))
    held = tuple(rows[0]) if rows else ()
    for column in COLUMNS:
        if column not in held:
            raise InvalidArgument(
                f"{path} has the columns {shorten(', '.join(held), 60, placeholder=' …') or 'none'} and lacks "
                f"'{column}': the first line is {','.join(COLUMNS)}"
            )
    labels = []
    for line, row in enumerate(rows, start=2):
        said = (row["label"] or "").strip().lower()
        if said not in TRUTHS:
            raise InvalidArgument(
                f"line {line} of {path} has the label '{row['label']}'; write one of {', '.join(TRUTHS)}"
            )
        labels.append(TRUTHS[said])
        for column in COLUMNS:
            if row[column] is None:
                raise InvalidArgument(f"line {line} of {path} has no '{column}': give every column in every row")
    return Examples([row["text"] for row in rows], labels, [row["group"] for row in rows])


def _place(number: int) -> Position:
    return last if number == -1 else index(number)
