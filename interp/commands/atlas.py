"""The command `interp atlas`: a map of activations to walk, of a net of pictures or of a language model."""

from pathlib import Path
from typing import Annotated, Any

import typer

from hooks import Images, Model, Network, Site, Towers
from hooks.errors import InvalidArgument
from hooks.plurals import count_of
from interp.atlas import (
    Atlas,
    Icons,
    attribute_cells,
    draw_icons,
    find_walk,
    map_activations,
    measure_map,
    read_cells,
    sample_activations,
)
from interp.atlas.cell_words import Words
from interp.commands.arguments import Device, Quiet, check_device, load_model, read_lines
from interp.commands.checks import check_new
from interp.commands.verb import Document, verb
from interp.common.texts import split_long_texts
from interp.postcard import LANDMARKS, ConvNet, bundled_nets, draw, load_net, scenes
from interp.show import atlas_page
from interp.show.frame import page_at
from interp.visualisation import measure_colours


@verb
def atlas_command(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="A net of pictures, such as 'convnet'; with --texts one of language."),
    ],
    site: Annotated[str, typer.Option(help="Where the activations are.")] = "embedding",
    texts: Annotated[Path | None, typer.Option(help="A file with one text per line, for a language model.")] = None,
    n: Annotated[int, typer.Option(min=10, help="Pictures of the test split, or texts at most.")] = 2000,
    per_item: Annotated[int, typer.Option(min=1, help="Places of each picture, or tokens of each text.")] = 1,
    side: Annotated[int, typer.Option(min=1, help="Squares along each side of the map.")] = 16,
    least: Annotated[int, typer.Option(min=1, help="Activations that a cell has at least.")] = 4,
    neighbours: Annotated[int, typer.Option(min=1, help="Of each activation, in the graph.")] = 30,
    steps: Annotated[int, typer.Option(min=0, help="Of the ascent that makes an icon; 0 for no icons.")] = 64,
    start: Annotated[str | None, typer.Option("--from", help="A landmark where a walk begins; needs --to.")] = None,
    end: Annotated[str | None, typer.Option("--to", help="A landmark where it ends.")] = None,
    out: Annotated[Path, typer.Option(help="A page, which ends in .html.")] = Path("atlas.html"),
    save: Annotated[Path | None, typer.Option(help="Keep the map in this file as well.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the places drawn and of the layout.")] = 0,
    device: Device = None,
    quiet: Quiet = False,
) -> Document:
    """Lay activations out in the plane, cut them into cells with icons or words, and write a page to walk them."""
    if (start is None) != (end is None):
        given, missing = ("--to", "--from") if start is None else ("--from", "--to")
        raise InvalidArgument(f"{given} is one end of a walk: give {missing} as well")
    place, page = Site.parse(site), page_at(out)
    if save is not None:
        check_new(save)
    settings: dict[str, Any] = {"neighbours": neighbours, "side": side, "least": least, "seed": seed}
    settings["progress"] = not quiet
    pictures: Images | None = None
    icons: Icons | None = None
    words: Words | None = None
    if texts is not None:
        read = load_model(model, device, quiet=quiet)
        atlas = _of_texts(read, texts, place, n, per_item, settings)
        words = read_cells(read, atlas) if place.name == "resid_post" else None
    else:
        net, pictures, atlas = _of_pictures(model, place, n, per_item, device, settings)
        if steps:
            icons = draw_icons(net, atlas, steps=steps, colours=measure_colours(pictures), progress=not quiet)
        words = (
            attribute_cells(net, pictures, atlas, LANDMARKS, progress=not quiet)
            if isinstance(net.hf, ConvNet)
            else None
        )
    quality = measure_map(atlas)
    walks = {} if start is None or end is None else {f"From {start} to {end}": find_walk(atlas, start, end)}
    atlas_page(page, atlas, icons=icons, pictures=pictures, words=words, quality=quality, walks=walks)
    if save is not None:
        atlas.save(save)
    cells = count_of(len(atlas.cells.cells), "cell")
    typer.echo(f"{len(atlas.sample):,} activations of {place} in {cells}\n{quality}")
    for name, walk in walks.items():
        typer.echo(f"{name}\n{walk}")
    typer.echo(f"page: {page.resolve()}")
    return {
        "page": page,
        "cells": len(atlas.cells.cells),
        "activations": len(atlas.sample),
        "trustworthiness": dict(quality.trustworthiness),
        "purity": None if quality.purity is None else dict(quality.purity.by_space),
        "walk": [atlas.sample.space.names[i] for walk in walks.values() for i in walk.route.numbers.tolist()],
    }


def _of_texts(model: Model, file: Path, site: Site, n: int, per_item: int, settings: dict[str, Any]) -> Atlas:
    given = read_lines(file)[:n]
    seed, progress = settings["seed"], settings["progress"]
    sample = sample_activations(
        model, split_long_texts(model, given), site, per_item=per_item, seed=seed, progress=progress
    )
    return map_activations(sample, **settings)


def _of_pictures(
    name: str, site: Site, n: int, per_item: int, device: str | None, settings: dict[str, Any]
) -> tuple[Network, Images, Atlas]:
    """A net, pictures, and the atlas of the one over the other."""
    if name not in bundled_nets() and not Path(name).is_dir():
        raise InvalidArgument(
            f"{name!r} is no net of pictures, of which {', '.join(bundled_nets())} are bundled: a language model needs "
            "--texts"
        )
    loaded, shown = load_net(name, check_device(device)), scenes("test", n)
    net = loaded.image if isinstance(loaded, Towers) else loaded
    pictures, labels = draw(shown).images(), [scene.landmark for scene in shown]
    seed, progress = settings["seed"], settings["progress"]
    sample = sample_activations(net, pictures, site, labels, per_item=per_item, seed=seed, progress=progress)
    return net, pictures, map_activations(sample, **settings)
