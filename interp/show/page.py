"""Pages of captioned panels in sections, light ones that share one script, and one that needs nothing but itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup
from plotly.graph_objects import Figure
from plotly.offline import get_plotlyjs, get_plotlyjs_version

from hooks.disk import write_text
from hooks.errors import InvalidArgument
from interp.show.frame import render_page, save_page
from interp.show.html import Html, part

_in_notebook: list[str] = []  # figures shown in this process: the first brings Plotly, of 4.8 MB, for all of them
CONFIG = {"responsive": True, "displayModeBar": False, "scrollZoom": False}


@dataclass(frozen=True)
class Panel:
    """A figure or table, with what to look at in it and the control to compare it with.

    A notebook shows all of it.
    """

    title: str
    body: Figure | Html
    caption: str
    control: str

    def _ipython_display_(self) -> None:
        from IPython.display import display

        above, under = part("heading", self.title), part("figcaption", self)
        if isinstance(self.body, Html):
            display(Html(above + Markup(self.body.text) + under))
        else:
            display(Html(above), self.body, Html(under))

    def _repr_html_(self) -> str:
        if isinstance(self.body, Html):
            return Html(part("panel", self, Markup(self.body.text)))._repr_html_()
        options = {"full_html": False, "include_mathjax": False, "config": CONFIG}
        figure = self.body.to_html(include_plotlyjs=not _in_notebook, **options)
        _in_notebook.append(self.title)
        return Html(part("panel", self, _scrolled(self.body, figure)))._repr_html_()


@dataclass(frozen=True)
class Section:
    """A chapter of the page: what question it answers, the panels that answer it, and what else is below them."""

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
    """Write an HTML page and return where it is; its figures are drawn by a script that is written next to it.

    All reports of a folder share the script (Plotly, 4.8 MB), so a page of one figure has about 50 kB. It opens
    offline, and nothing is fetched; `bundle_page` makes one file of page and script, to send to somebody. All strings
    are plain text, shown as they are; only an `Html` body is markup.

    Raises:
        InvalidArgument: there is no section, or the name does not end in `.html`.

    Examples:
        ```python
        panel = dose_panel(response)
        report("report.html", "One latent", "What it does.", [Section("Steering", "Turned up.", (panel,))])
        ```
    """
    if not sections:
        raise InvalidArgument("a report needs at least one section, none was given")
    numbered = [
        {
            "title": section.title,
            "text": section.text,
            "panels": [(panel, body_html(panel, f"figure-{number}-{i}")) for i, panel in enumerate(section.panels, 1)],
            "below": Markup("" if section.below is None else section.below.text),
        }
        for number, section in enumerate(sections, start=1)
    ]
    values = {"lead": lead, "tiles": tiles, "sections": numbered, "notes": notes}
    drawn = any(isinstance(panel.body, Figure) for section in sections for panel in section.panels)
    head = Markup(_script_tag()) if drawn else Markup()
    written = save_page(path, render_page("report.html", title, head=head, **values))
    if drawn:
        _share_script(written.parent)
    return written


def bundle_page(page: str | Path, out: str | Path) -> Path:
    """Write a report and the script of its figures as one file that needs nothing else, and return where it is.

    Raises:
        InvalidArgument: `out` does not end in `.html`.
        OSError: there is no such page.

    Cost: 4.8 MB on disk.

    Examples:
        ```python
        bundle_page("report.html", "report_to_send.html")
        ```
    """
    text = Path(page).read_text(encoding="utf-8")
    return save_page(out, text.replace(_script_tag(), part("script", Markup(get_plotlyjs()))))


def _script_name() -> str:
    return f"plotly-{get_plotlyjs_version()}.min.js"


def _script_tag() -> str:
    return part("shared_script", _script_name())


def _share_script(folder: Path) -> None:
    file, script = folder / _script_name(), get_plotlyjs()
    if not file.is_file() or file.read_text(encoding="utf-8") != script:
        write_text(file, script)


def body_html(panel: Panel, name: str) -> Markup:
    """The figure or table of a panel as HTML; `name` is the figure's id, one to a page."""
    if isinstance(panel.body, Html):
        return Markup(panel.body.text)
    options = {"full_html": False, "include_plotlyjs": False, "include_mathjax": False}
    return _scrolled(panel.body, panel.body.to_html(**options, div_id=name, config=CONFIG))


def _scrolled(figure: Figure, drawn: str) -> Markup:
    """A figure that is scrolled where its page is narrower than it can be read at."""
    least = (figure.layout.meta or {}).get("least_width", 0)
    return part("scrolled", least, Markup(drawn)) if least else Markup(drawn)
