"""An activation atlas as a page: pan, zoom, search, look into cells, and walk from one to another."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from markupsafe import Markup

from hooks import Images
from hooks.border import Count
from hooks.errors import InvalidArgument
from interp.atlas import Atlas, Icons, MapQuality, Space, Walk, link_neighbours
from interp.atlas.cell_words import Words
from interp.show.frame import render_page, save_page
from interp.show.html import read_source
from interp.show.page import Tile
from interp.show.pictures import picture_url

SIZE, DOTS, NEAR, LARGE = 1000.0, 6000, 6, 0.95


def atlas_page(
    path: str | Path,
    atlas: Atlas,
    *,
    icons: Icons | None = None,
    pictures: Images | None = None,
    words: Words | None = None,
    quality: MapQuality | None = None,
    walks: Mapping[str, Walk] | None = None,
    title: str = "An activation atlas",
    examples: Count = 4,
) -> Path:
    """Write an atlas as a self-contained page, and return where it is.

    Dragging and the wheel, two fingers or `+` and `−` move and enlarge it; a search marks cells; a click or the arrow
    keys choose one, whose icon, real examples, words and figures are shown; `f` and `t` set the ends of a walk from
    cell to cell, over each cell's nearest by the cosine of their means in all dimensions, next to the straight line.

    Args:
        path: the page, which ends in `.html`.
        atlas: of pictures or texts.
        icons: of `draw_icons`.
        pictures: those that the atlas is of, for the real examples.
        words: of `attribute_cells` or `read_cells`.
        quality: of `measure_map`.
        walks: of `find_walk`, by name, whose rows and records are listed.
        title: of the page.
        examples: real ones of each cell.

    Raises:
        InvalidArgument: a name that does not end in `.html`, or icons or words of another number of cells.

    Examples:
        ```python
        atlas_page("atlas.html", atlas, icons=icons, pictures=pictures)
        ```
    """
    cells = atlas.cells.cells
    for name, given in (("icons", None if icons is None else icons.cosine), ("words", words)):
        if given is not None and len(given) != len(cells):
            raise InvalidArgument(f"{len(given)} {name} were given for {len(cells)} cells: one for each")
    shown = [_cell(atlas, i, icons, pictures, words, examples) for i in range(len(cells))]
    links, large = _links(atlas)
    data = {"cells": shown, "links": links, "large": large, "size": SIZE, "square": SIZE / atlas.cells.side}
    page = render_page(
        "atlas.html",
        title,
        lead=_lead(atlas),
        tiles=_tiles(atlas, icons, quality),
        dots=_dots(atlas),
        size=SIZE,
        walks=[(name, str(walk), _strip(atlas, walk, pictures)) for name, walk in (walks or {}).items()],
        notes=_notes(atlas, icons),
        data=Markup(json.dumps(data, allow_nan=False).replace("<", "\\u003c")),
        atlas=read_source("atlas.js"),
    )
    return save_page(path, page)


def _cell(
    atlas: Atlas, number: int, icons: Icons | None, pictures: Images | None, words: Words | None, examples: int
) -> dict[str, Any]:
    """What the page knows of a cell."""
    cell, one = atlas.cells.cells[number], atlas.sample
    chosen, seen = list[int](), set[int]()
    for row in cell.members.tolist():
        if int(one.item[row]) not in seen and len(chosen) < examples:
            chosen.append(row)
            seen.add(int(one.item[row]))
    said = [] if words is None else [[word.strip() or word, round(value, 3)] for word, value in words[number]]
    label = cell.label if cell.label is not None else " · ".join(str(word) for word, _ in said[:2])
    return {
        "row": cell.row,
        "column": cell.column,
        "n": len(cell),
        "label": label,
        "purity": None if cell.purity is None else round(cell.purity, 3),
        "dispersion": round(cell.dispersion, 3),
        "words": said,
        "icon": None if icons is None else picture_url(icons.pictures.pixels[number]),
        "cosine": None if icons is None else round(float(icons.cosine[number]), 3),
        "examples": [
            {
                "text": one.space.names[row],
                "picture": None if pictures is None else picture_url(pictures.pixels[one.item[row]]),
            }
            for row in chosen
        ],
    }


def _links(atlas: Atlas) -> tuple[list[list[int | float]], float]:
    """Each cell with its nearest by the cosine of their means, and what only one edge in twenty is longer than."""
    means = atlas.means - atlas.sample.space.mean
    if len(means) < 3:
        return [], 0.0
    space = Space(means, tuple(map(str, range(len(means)))))
    graph = link_neighbours(space, min(NEAR, len(means) - 1), progress=False)
    edges: list[list[int | float]] = [
        [i, j, round(d, 4)]
        for i, (near, far) in enumerate(zip(graph.neighbours.tolist(), graph.distances.tolist(), strict=True))
        for j, d in zip(near, far, strict=True)
    ]
    return edges, round(graph.step_quantile(LARGE), 4)


def _dots(atlas: Atlas) -> str:
    """Rows as one path of dots, a few thousand of them."""
    (x0, y0), (x1, y1) = atlas.cells.low, atlas.cells.high
    rows = torch.linspace(0, len(atlas.xy) - 1, min(DOTS, len(atlas.xy))).long()
    at = (atlas.xy[rows] - torch.tensor([x0, y0])) / torch.tensor([x1 - x0, y1 - y0])
    at = at[((at >= 0) & (at < 1)).all(1)] * SIZE
    return "".join(f"M{x:.0f} {SIZE - y:.0f}h0" for x, y in at.tolist())


def _strip(atlas: Atlas, walk: Walk, pictures: Images | None) -> list[dict[str, str | None]]:
    """The rows of a walk, with their pictures."""
    one = atlas.sample
    return [
        {
            "text": one.space.names[row],
            "picture": None if pictures is None else picture_url(pictures.pixels[one.item[row]]),
        }
        for row in walk.route.numbers.tolist()
    ]


def _lead(atlas: Atlas) -> str:
    cells = atlas.cells
    return (
        f"{len(atlas.sample):,} activations at {atlas.sample.space.site}, those that are alike near each other; each "
        f"square of the {cells.side} × {cells.side} shows the mean of those in it. Distances between far apart squares "
        "mean nothing: a walk goes over neighbours in all dimensions."
    )


def _tiles(atlas: Atlas, icons: Icons | None, quality: MapQuality | None) -> Sequence[Tile]:
    cells, found = atlas.cells, list[Tile]()
    held = sum(map(len, cells.cells))
    rest = f"{cells.sparse} in squares of fewer than {atlas.least}, {cells.outside} outside"
    found.append(Tile(str(len(cells.cells)), f"cells, with {held:,} activations in them", rest))
    if quality is not None:
        one, flat = (quality.trustworthiness[name] for name in ("map", "principal components"))
        meaning = f"trustworthiness of the map ({one.ends()})"
        found.append(Tile(f"{one.value:.3f}", meaning, f"two principal components {flat.value:.3f}"))
        if quality.purity is not None:
            by = quality.purity.by_space
            meaning = f"of {quality.purity.k} neighbours on the map have one's label"
            control = f"in all dimensions {by['all dimensions'].value:.0%}, shuffled {quality.purity.chance:.0%}"
            found.append(Tile(f"{by['map'].value:.0%}", meaning, control))
    if icons is not None:
        meaning, control = "mean cosine of an icon with its cell", f"{float(icons.begun.mean()):.2f} of noise"
        found.append(Tile(f"{float(icons.cosine.mean()):.2f}", meaning, control))
    return found


def _notes(atlas: Atlas, icons: Icons | None) -> list[str]:
    model = (atlas.sample.space.fingerprint or "unknown")[:12]
    found = [f"Made from the graph of {atlas.graph.k} neighbours of each row; model {model}."]
    if icons is not None:
        found.append("An icon is a picture made to be as a mean is, and a mean need not be any picture's activation.")
    return found
