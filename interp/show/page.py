"""One page that needs nothing but itself: sections of captioned panels, with Plotly inlined once."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from plotly.graph_objects import Figure
from plotly.offline import get_plotlyjs

from interp.show.html import STYLE, Html, escape

CONFIG = {"responsive": True, "displayModeBar": False, "scrollZoom": False}


@dataclass(frozen=True)
class Panel:
    """A figure or table, with what to look at in it and the control it must be read against."""

    title: str
    body: Figure | Html
    caption: str
    control: str


@dataclass(frozen=True)
class Section:
    """A chapter of the page: what question it answers, and the panels that answer it."""

    title: str
    text: str
    panels: tuple[Panel, ...] = ()


@dataclass(frozen=True)
class Tile:
    """One number that the page is about, what it is, and what to compare it with."""

    value: str
    meaning: str
    control: str


def report(
    path: str | Path,
    title: str,
    lead: str,
    sections: Sequence[Section],
    tiles: Sequence[Tile] = (),
    notes: Sequence[str] = (),
) -> Path:
    """Write a self-contained HTML page and return where it is.

    The page opens offline: Plotly (4.8 MB) is in it once, and nothing is fetched. All strings are plain text, shown
    as they are; only an `Html` body is markup.

    Errors: `ValueError` when there is no section, or the name does not end in `.html`.

    ```python
    panel = dose_panel(response)
    report("report.html", "One latent", "What it does.", [Section("Steering", "Turned up.", (panel,))])
    ```
    """
    path = Path(path)
    if path.suffix != ".html":
        raise ValueError(f"a report is one HTML page, but its path is {str(path)!r}: let the name end in .html")
    if not sections:
        raise ValueError("a report needs at least one section, none was given")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_page(title, lead, sections, tiles, notes), encoding="utf-8")
    return path


def _page(title: str, lead: str, sections: Sequence[Section], tiles: Sequence[Tile], notes: Sequence[str]) -> str:
    body = "".join(_section(number, section) for number, section in enumerate(sections, start=1))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>{STYLE}</style>
<script>{get_plotlyjs()}</script>
</head>
<body class="interp">
<main>
<h1>{escape(title)}</h1>
<p class="lead">{escape(lead)}</p>
<div class="tiles">{"".join(_tile(tile) for tile in tiles)}</div>
{body}
<footer>{"".join(f"<p>{escape(note)}</p>" for note in notes)}</footer>
</main>
</body>
</html>
"""


def _tile(tile: Tile) -> str:
    value, meaning, control = escape(tile.value), escape(tile.meaning), escape(tile.control)
    return f'<div class="tile"><b>{value}</b><span>{meaning}</span><i>{control}</i></div>'


def _section(number: int, section: Section) -> str:
    panels = "".join(_panel(f"figure-{number}-{i}", panel) for i, panel in enumerate(section.panels, start=1))
    heading = f'<h2><span class="number">{number}</span>{escape(section.title)}</h2>'
    return f"<section>{heading}<p>{escape(section.text)}</p>{panels}</section>"


def _panel(name: str, panel: Panel) -> str:
    body = panel.body.text if isinstance(panel.body, Html) else _figure(name, panel.body)
    caption = f'{escape(panel.caption)}<span class="control">{escape(panel.control)}</span>'
    return f"<figure><h3>{escape(panel.title)}</h3>{body}<figcaption>{caption}</figcaption></figure>"


def _figure(name: str, figure: Figure) -> str:
    return figure.to_html(full_html=False, include_plotlyjs=False, include_mathjax=False, div_id=name, config=CONFIG)
