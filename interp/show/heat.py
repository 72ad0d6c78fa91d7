"""The heat map that lenses, patches and heads share: rows from the bottom up, values on hover."""

from collections.abc import Sequence

from plotly.graph_objects import Figure, Heatmap

from interp.show.html import visible
from interp.show.theme import BEFORE, CONCEPT, PAPER, style_figure

Cells = Sequence[Sequence[float]]


def heat(
    values: Cells,
    columns: Sequence[str],
    rows: Sequence[str],
    *,
    most: float,
    texts: Sequence[Sequence[str]] | None = None,
    hover: str = "%{y}, %{x}<br>%{z:.3g}<extra></extra>",
) -> Figure:
    """Cells coloured from blue at -`most` through white at 0 to red at `most`, the first row at the bottom."""
    cells = Heatmap(
        z=[list(row) for row in values],
        x=list(range(len(columns))),
        y=[*map(safe, rows)],
        text=texts,
        texttemplate=None if texts is None else "%{text}",
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
    figure.update_yaxes(type="category", showgrid=False)
    return figure.update_layout(margin_l=104)


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
