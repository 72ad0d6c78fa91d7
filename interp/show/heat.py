"""The heat map that lenses, patches and heads share: rows from the bottom up, values on hover."""

from collections.abc import Sequence

from plotly.graph_objects import Figure, Heatmap

from interp.show.html import visible
from interp.show.theme import BEFORE, CONCEPT, PAPER, style_figure

Cells = Sequence[Sequence[float]]
LETTER = 6.6  # the width of a letter in a cell, in pixels
LONGEST = 9  # letters of a cell's text that are written; the hover says all of it
ROOM = 800  # the width that a page has for a figure


def heat(
    values: Cells,
    columns: Sequence[str],
    rows: Sequence[str],
    *,
    most: float,
    texts: Sequence[Sequence[str]] | None = None,
    hover: str = "%{y}, %{x}<br>%{z:.3g}<extra></extra>",
) -> Figure:
    """Cells coloured from blue at -`most` through white at 0 to red at `most`, the first row at the bottom.

    A long text in a cell is cut short; `%{hovertext}` in `hover` is the whole of it. Columns are never so narrow that
    their texts or names overlap: a figure wider than its page is scrolled.
    """
    written = None if texts is None else [[_cut(text) for text in row] for row in texts]
    cells = Heatmap(
        z=[list(row) for row in values],
        x=list(range(len(columns))),
        y=[*map(safe, rows)],
        text=written,
        texttemplate=None if texts is None else "%{text}",
        textfont={"size": 11},
        hovertext=texts,
        colorscale=[(0, BEFORE), (0.5, PAPER), (1, CONCEPT)],
        zmin=-most,
        zmax=most,
        xgap=1,
        ygap=1,
        hovertemplate=hover.replace("%{x}", "%{customdata}"),
        customdata=[[*map(safe, columns)]] * len(rows),
        showscale=False,
    )
    figure = style_figure(Figure(cells), 120 + 26 * len(rows))
    figure.update_xaxes(tickvals=list(range(len(columns))), ticktext=[*map(label_of, columns)], showgrid=False)
    figure.update_yaxes(type="category", showgrid=False, automargin=True)
    longest = max((len(text) for row in written or () for text in row), default=0)
    return set_least_width(figure, 120 + len(columns) * max(20, round(LETTER * longest) + 8))


def set_least_width(figure: Figure, width: int) -> Figure:
    """Say below what width a figure cannot be read, in place, and return it: a page scrolls one that is wider."""
    figure.update_layout(meta={"least_width": width})
    return figure.update_layout(width=width) if width > ROOM else figure


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def safe(text: str) -> str:
    """Text that Plotly shows as it is: it takes some tags in labels for markup.

    Examples:
        >>> safe("<s>")
        '&lt;s>'
    """
    return text.replace("&", "&amp;").replace("<", "&lt;")


def label_of(token: str) -> str:
    """A token for a label: visible and safe."""
    return safe(visible(token))
