"""One page that needs nothing but itself: sections of captioned panels, with Plotly inlined once."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from plotly.graph_objects import Figure
from plotly.offline import get_plotlyjs

from hooks.errors import InvalidArgument
from interp.show.frame import framed, saved
from interp.show.html import Html, escape

CONFIG = {"responsive": True, "displayModeBar": False, "scrollZoom": False}


@dataclass(frozen=True)
class Panel:
    """A figure or table, with what to look at in it and the control it must be read against.

    A notebook shows all of it.
    """

    title: str
    body: Figure | Html
    caption: str
    control: str

    def _ipython_display_(self) -> None:
        from IPython.display import display

        shown = f"<h3>{escape(self.title)}</h3>"
        under = f"<figcaption>{caption_html(self)}</figcaption>"
        if isinstance(self.body, Html):
            display(Html(shown + self.body.text + under))
        else:
            display(Html(shown), self.body, Html(under))


@dataclass(frozen=True)
class Section:
    """A chapter of the page: what question it answers, the panels that answer it, and what else stands below them."""

    title: str
    text: str
    panels: tuple[Panel, ...] = ()
    below: Html | None = None


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
    if not sections:
        raise InvalidArgument("a report needs at least one section, none was given")
    body = (
        f'<p class="lead">{escape(lead)}</p><div class="tiles">{tiled(tiles)}</div>'
        + "".join(_section(number, section) for number, section in enumerate(sections, start=1))
        + f"<footer>{''.join(f'<p>{escape(note)}</p>' for note in notes)}</footer>"
    )
    return saved(path, framed(title, body, f"<script>{get_plotlyjs()}</script>"))


def tiled(tiles: Sequence[Tile]) -> str:
    """The HTML of some tiles.

    >>> tiled([Tile("98 %", "kept", "of 50")])
    '<div class="tile"><b>98 %</b><span>kept</span><i>of 50</i></div>'
    """
    return "".join(_tile(tile) for tile in tiles)


def _tile(tile: Tile) -> str:
    value, meaning, control = escape(tile.value), escape(tile.meaning), escape(tile.control)
    return f'<div class="tile"><b>{value}</b><span>{meaning}</span><i>{control}</i></div>'


def _section(number: int, section: Section) -> str:
    panels = "".join(_panel(f"figure-{number}-{i}", panel) for i, panel in enumerate(section.panels, start=1))
    heading = f'<h2><span class="number">{number}</span>{escape(section.title)}</h2>'
    below = "" if section.below is None else section.below.text
    return f"<section>{heading}<p>{escape(section.text)}</p>{panels}{below}</section>"


def _panel(name: str, panel: Panel) -> str:
    body = panel.body.text if isinstance(panel.body, Html) else _figure(name, panel.body)
    return f"<figure><h3>{escape(panel.title)}</h3>{body}<figcaption>{caption_html(panel)}</figcaption></figure>"


def caption_html(panel: Panel) -> str:
    """The HTML under a panel: what to look at, and the control."""
    return f'{escape(panel.caption)}<span class="control">{escape(panel.control)}</span>'


def _figure(name: str, figure: Figure) -> str:
    return figure.to_html(full_html=False, include_plotlyjs=False, include_mathjax=False, div_id=name, config=CONFIG)
